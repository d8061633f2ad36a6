package main

import (
	"encoding/json"
	"fmt"
	"os"

	"gridgate/internal/qrcode"
	"gridgate/internal/sys"
)

// labelMillimetres is the side of the code on the label: a module of 0.6 mm, which
// every phone reads.
const labelMillimetres = 35

// label prints the QR code of the gateway, or writes a picture of it.
func (p *provision) label(f *provisionFlags) error {
	id, err := p.identity()
	if err != nil {
		return err
	}
	recipient, err := p.vault.Recipient()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("gridgate:1 site=%s gateway=%s recipient=%s key=sha256:%s", id.site, id.gateway, recipient, id.fingerprint())
	code, err := qrcode.Encode(text)
	if err != nil {
		return err
	}
	if f.svg != "" {
		if err := os.WriteFile(f.svg, []byte(code.SVG(labelMillimetres, id.name(), id.fingerprint())), 0o644); err != nil { //nolint:gosec // a label is for everybody
			return err
		}
	}
	if f.asJSON {
		return json.NewEncoder(p.env.Stdout).Encode(struct {
			Text string `json:"text"`
			SVG  string `json:"svg,omitempty"`
		}{text, f.svg})
	}
	if f.svg != "" {
		fmt.Fprintf(p.env.Stdout, "%s written: %s\n", f.svg, text)
		return nil
	}
	out, _ := p.env.Stdout.(*os.File)
	fmt.Fprintf(p.env.Stdout, "%s%s\n", code.Terminal(out != nil && sys.IsTerminal(out)), text)
	return nil
}
