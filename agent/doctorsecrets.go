package agent

import (
	"gridgate/agent/doctor"
	"gridgate/agent/vault"
	"gridgate/configs"
)

// SecretFindings examines the store of secrets for gridgate doctor: how well its key
// is kept, and whether each secret can be read.
func SecretFindings(getenv func(string) string) func(*configs.Config) []doctor.Finding {
	return func(cfg *configs.Config) []doctor.Finding {
		v := vault.Open(VaultDir(cfg.Buffer.Path), getenv)
		const check = "secrets"
		how, err := v.Protection()
		if err != nil {
			if v.Fresh() { // who keeps all secrets elsewhere needs no key
				return nil
			}
			return []doctor.Finding{{Level: doctor.Fail, Check: check, Text: err.Error(), Do: doctor.Remedy(err.Error())}}
		}
		all := []doctor.Finding{{Level: doctor.OK, Check: check, Text: "the store's key is kept as: " + string(how)}}
		switch how {
		case vault.ByOpenFile:
			all[0].Level, all[0].Do = doctor.Fail, "chmod 0600 the files in "+v.Dir()
		case vault.Unprotected:
			all[0].Text = "the store has no key yet: none is in it"
		case vault.ByCredential, vault.ByFile:
		}
		entries, err := v.List()
		if err != nil {
			return append(all, doctor.Finding{Level: doctor.Fail, Check: check, Text: err.Error(), Do: "gridgate secret list"})
		}
		for _, e := range entries {
			if e.Problem != "" {
				all = append(all, doctor.Finding{Level: doctor.Fail, Check: check, Text: e.Name + ": " + e.Problem, Do: "gridgate secret set " + e.Name})
			}
		}
		return all
	}
}
