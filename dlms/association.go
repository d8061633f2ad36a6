package dlms

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// Associate opens an association: it asks for it and, with the high-level
// mechanisms, shows the meter that it knows the secret and has the meter show
// the same (IEC 62056-5-3, 7.2.2.2.4: the four passes).
//
// A refusal is an *AssociationError, and ErrAuthentication where credentials
// are the reason, on either side. A meter that would do less than was asked
// for is security.ErrWeak, one that sends our own challenge back
// security.ErrReflected. After ErrAuthentication the meter was told that the
// association is over, if it would listen.
func (c *Client) Associate(ctx context.Context) (Association, error) {
	granted, err := c.associate(ctx)
	if err != nil {
		if c.open && (errors.Is(err, ErrAuthentication) || errors.Is(err, ErrNotGranted)) {
			_ = c.Release(ctx) // the reason is in err
		}
		c.open, c.secure.on = false, false
		return Association{}, fmt.Errorf("associate: %w", err)
	}
	return granted, nil
}

func (c *Client) associate(ctx context.Context) (Association, error) {
	c.open, c.proved, c.secure.on = false, false, false
	if err := c.prepare(); err != nil {
		return Association{}, err
	}
	info, err := c.secure.initiate(appendInitiateRequest(nil, c.options, c.secure.sender.Keys.Dedicated))
	if err != nil {
		return Association{}, err
	}
	c.out = appendAARQ(c.out[:0], c.options, c.secure.challenge, info)
	isAARE := func(apdu []byte) bool { return apdu[0] == tagAARE }
	apdu, err := c.exchange(ctx, isAARE)
	for n := 0; c.again(ctx, err, n) && c.options.Mechanism == NoAuthentication && !c.options.Security.ciphers(); n++ {
		apdu, err = c.repeat(ctx, n, isAARE)
	}
	if err != nil {
		return Association{}, err
	}
	answer, err := parseAARE(apdu)
	if err != nil {
		return Association{}, err
	}
	granted, err := c.grant(answer)
	if err != nil {
		return Association{}, err
	}
	c.granted, c.open, c.secure.on = granted, true, c.options.Security.ciphers()
	if c.options.Mechanism.isHigh() {
		if err := c.prove(ctx, answer.challenge); err != nil {
			return Association{}, err
		}
	}
	if err := c.secure.proved(granted, c.options.Security); err != nil {
		return Association{}, err
	}
	c.proved = true
	return granted, nil
}

// grant looks at what the meter answered to the association request.
func (c *Client) grant(answer aare) (Association, error) {
	o := c.options
	if err := answer.refused(); err != nil {
		return Association{}, err
	}
	if err := c.secure.meet(answer, o); err != nil {
		return Association{}, err
	}
	// An answer without the xDLMS part is taken as one that grants what was
	// proposed: some meters leave it out.
	granted := Association{Conformance: o.Conformance}
	if answer.info != nil || o.Security.ciphers() {
		info, err := c.secure.initiated(answer.info)
		if err != nil {
			return Association{}, err
		}
		var service *ServiceError
		if granted, service, err = parseInitiateResponse(info); err != nil {
			return Association{}, err
		}
		if service != nil {
			return Association{}, answer.error(service)
		}
	}
	granted.MeterTitle, granted.MeterCertificate = c.secure.receiver.Title, string(answer.certificate)
	return granted, nil
}

// prove does the third and the fourth pass: it sends what it makes of the
// meter's challenge, and looks at what the meter makes of ours.
func (c *Client) prove(ctx context.Context, challenge []byte) error {
	s := c.options.Security
	h := security.Handshake{
		Mechanism: security.Mechanism(c.options.Mechanism), Own: s.Title, Peer: c.secure.receiver.Title,
		OwnChallenge: c.secure.challenge, PeerChallenge: challenge,
		Secret: c.options.Password, SigningKey: s.SigningKey, PeerKey: c.secure.meterKey, Random: s.random(),
		Sender: &c.secure.sender, Receiver: &c.secure.receiver,
	}
	since := h.Mark()
	reply, err := h.Reply(nil)
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	argument := axdr.OctetString(string(reply))
	method := replyToHLS(c.options.ShortNames)
	act := c.act
	if c.options.ShortNames {
		act = c.actByName
	}
	answer, err := act(ctx, method, &argument)
	switch {
	case isProofRefused(err):
		return fmt.Errorf("%w: the meter did not take our proof: %w", ErrAuthentication, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDuringProof, authentication(err))
	case answer.Tag != axdr.TagOctetString:
		return fmt.Errorf("%w: the meter gave no proof: %v", ErrAuthentication, answer.Tag)
	}
	if err := h.Verify([]byte(answer.Str), since); err != nil {
		return fmt.Errorf("authentication of the meter: %w", authentication(err))
	}
	return nil
}

// isProofRefused says whether the meter did not take the proof: by a result, or
// as some meters do by an exception, where that has no other reason.
func isProofRefused(err error) bool {
	const unsupported, kindService = 2, 3
	var access AccessError
	var exception *ExceptionError
	var service *ServiceError
	switch {
	case errors.As(err, &exception):
		return exception.Service != unsupported && exception.Service < PDUTooLong
	case errors.As(err, &service):
		return service.Kind != kindService
	}
	return errors.As(err, &access)
}

// authentication marks errors that say that keys or secrets differ.
func authentication(err error) error {
	if errors.Is(err, security.ErrTag) || errors.Is(err, security.ErrProof) {
		return fmt.Errorf("%w: %w", ErrAuthentication, err)
	}
	return err
}

// replyToHLS is the method reply_to_HLS_authentication of the association that
// is being opened.
func replyToHLS(shortNames bool) Attribute {
	code := obis.Code{0, 0, 40, 0, 0, 255}
	if shortNames {
		return Attribute{Class: 12, Code: code, ID: 8}
	}
	return Attribute{Class: 15, Code: code, ID: 1}
}

// Associated says whether there is an association.
func (c *Client) Associated() bool { return c.open }

// Granted gives what the meter granted with the association.
func (c *Client) Granted() Association { return c.granted }

// Release ends the association. It is over whatever Release returns.
func (c *Client) Release(ctx context.Context) error {
	if !c.open {
		return nil
	}
	c.open = false
	err := c.release(ctx)
	c.secure.on = false
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

func (c *Client) release(ctx context.Context) error {
	var info []byte
	if s := c.options.Security; s.ciphers() && s.ProtectedRelease {
		var err error
		if info, err = c.secure.initiate(appendInitiateRequest(nil, c.options, security.Key{})); err != nil {
			return err
		}
	}
	c.out = appendRLRQ(c.out[:0], info)
	apdu, err := c.exchange(ctx, func(apdu []byte) bool { return apdu[0] == tagRLRE })
	if err != nil {
		return err
	}
	return parseRLRE(apdu)
}
