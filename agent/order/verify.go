package order

import (
	"crypto/sha256"
	"fmt"
)

// Verify gives the document that data holds, when enough keys of the role that
// its kind wants have signed it, and nobody who is not known here. The error
// wraps one of this package's.
func (t *Trust) Verify(data []byte) (*Document, error) {
	e, err := split(data)
	if err != nil {
		return nil, err
	}
	by, unknown, err := t.signers(e)
	if err != nil {
		return nil, err
	}
	if len(by) == 0 {
		return nil, fmt.Errorf("%w: key %016X is not trusted here", ErrSignature, signatureID(e.signatures[0]))
	}
	d, err := parse(e.body) // somebody who is trusted has signed it
	if err != nil {
		return nil, err
	}
	d.signed, d.Hash = by, sha256.Sum256(e.body)
	if len(unknown) > 0 && d.Kind != KindTrust {
		return nil, fmt.Errorf("%w: signature %d: key %016X is not trusted here", ErrSignature, unknown[0]+1, signatureID(e.signatures[unknown[0]]))
	}
	return d, t.mayHaveSigned(d)
}

// mayHaveSigned says whether enough keys of the role that a document wants
// have signed it. Whether a command needs the role control, or two signatures,
// is for who knows what it does.
func (t *Trust) mayHaveSigned(d *Document) error {
	role := map[Kind]Role{KindTrust: Root, KindConfig: Config, KindCommand: Command, KindFirmware: Firmware}[d.Kind]
	n := d.Signed(role)
	if d.Kind == KindCommand && n == 0 && d.Signed(Control) > 0 {
		role, n = Control, d.Signed(Control)
	}
	switch need := t.Threshold(role); {
	case n == 0:
		return fmt.Errorf("%w: %s wants the role %s, and it is signed by %s", ErrRole, d.Kind, role, signedBy(d))
	case n < need:
		return fmt.Errorf("%w: %d keys of the role %s have signed, %d must", ErrThreshold, n, role, need)
	}
	return nil
}

func signedBy(d *Document) Role {
	for _, r := range Roles() {
		if d.Signed(r) > 0 {
			return r
		}
	}
	return "nobody"
}

// VerifyTrust gives the keys that a trust document brings. It is signed by
// enough of the root keys that are valid until then, and by enough of those
// that it brings: nobody can lock himself out with a key that he does not hold.
func (t *Trust) VerifyTrust(data []byte) (*Trust, *Document, error) {
	d, err := t.Verify(data)
	if err != nil {
		return nil, nil, err
	}
	return t.replaced(data, d)
}

func (t *Trust) replaced(data []byte, d *Document) (*Trust, *Document, error) {
	if d.Kind != KindTrust {
		return nil, nil, fmt.Errorf("%w: %s; want a trust document", ErrKind, d.Kind)
	}
	next, err := parseTrust(d)
	if err != nil {
		return nil, nil, err
	}
	e, err := split(data)
	if err != nil {
		return nil, nil, err
	}
	by, unknown, err := next.signers(e)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range unknown {
		if _, _, known := t.signer(e.signatures[i]); !known {
			return nil, nil, fmt.Errorf("%w: signature %d: key %016X is trusted neither here nor by the document", ErrSignature, i+1, signatureID(e.signatures[i]))
		}
	}
	if n, need := len(by[Root]), next.Threshold(Root); n < need {
		return nil, nil, fmt.Errorf("%w: %d of the root keys that it brings have signed, %d must", ErrThreshold, n, need)
	}
	return next, d, nil
}

// FirstTrust gives the keys of a trust document that nobody vouches for but
// itself: the one that a gateway is provisioned with, or that it stored after
// it had verified it.
func FirstTrust(data []byte) (*Trust, *Document, error) {
	e, err := split(data)
	if err != nil {
		return nil, nil, err
	}
	d, err := parse(e.body)
	if err != nil {
		return nil, nil, err
	}
	d.Hash = sha256.Sum256(e.body)
	if d.Kind != KindTrust {
		return nil, nil, fmt.Errorf("%w: %s; want a trust document", ErrKind, d.Kind)
	}
	t, err := parseTrust(d)
	if err != nil {
		return nil, nil, err
	}
	if d.signed, _, err = t.signers(e); err != nil {
		return nil, nil, err
	}
	if n, need := d.Signed(Root), t.Threshold(Root); n < need {
		return nil, nil, fmt.Errorf("%w: %d keys of the role %s have signed, %d must", ErrThreshold, n, Root, need)
	}
	return t, d, nil
}

// Read gives a document without verifying it: for those who sign documents, and
// for what was verified before.
func Read(data []byte) (*Document, error) {
	e, err := split(data)
	if err != nil {
		return nil, err
	}
	d, err := parse(e.body)
	if err != nil {
		return nil, err
	}
	d.Hash = sha256.Sum256(e.body)
	if d.Kind == KindTrust {
		_, err = parseTrust(d)
	}
	return d, err
}

// ReadTrust reads the body of a trust document that is not signed yet.
func ReadTrust(body []byte) (*Trust, error) {
	d, err := parse(body)
	if err != nil {
		return nil, err
	}
	return parseTrust(d)
}

// Sum gives the hash that a document is known by, which nobody may have signed:
// that of its body, or of the whole where no body can be told apart.
func Sum(data []byte) [32]byte {
	e, err := split(data)
	if err != nil {
		return sha256.Sum256(data)
	}
	return sha256.Sum256(e.body)
}

// ReadBody reads a body that nobody has signed yet.
func ReadBody(body []byte) (*Document, error) {
	d, err := parse(body)
	if err == nil {
		d.Hash = sha256.Sum256(body)
	}
	return d, err
}
