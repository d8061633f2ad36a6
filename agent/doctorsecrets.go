package agent

import (
	"gridgate/agent/doctor"
	"gridgate/agent/status"
	"gridgate/agent/vault"
	"gridgate/configs"
)

// SecretFindings examines the store of secrets for gridgate doctor: how well its key
// is kept, and whether each secret can be read. listed asks the running agent, which
// may be the only one to have the key; nil where the agent examines itself.
func SecretFindings(getenv func(string) string, listed func(*configs.Config) ([]status.Secret, error)) func(*configs.Config) []doctor.Finding {
	return func(cfg *configs.Config) []doctor.Finding {
		v := vault.Open(VaultDir(cfg.Buffer.Path), getenv)
		how, err := v.Protection()
		if err != nil {
			if v.Fresh() { // who keeps all secrets elsewhere needs no key
				return nil
			}
			if listed != nil {
				if all, lerr := listed(cfg); lerr == nil {
					return toldSecrets(all)
				}
			}
			return []doctor.Finding{{Level: doctor.Fail, Check: secretsCheck, Text: err.Error(), Do: doctor.Remedy(err.Error())}}
		}
		all := []doctor.Finding{{Level: doctor.OK, Check: secretsCheck, Text: "the store's key is kept as: " + string(how)}}
		switch how {
		case vault.ByOpenFile:
			all[0].Level, all[0].Do = doctor.Fail, "chmod 0600 the files in "+v.Dir()
		case vault.Unprotected:
			all[0].Text = "the store has no key yet: none is in it"
		case vault.ByCredential, vault.ByFile:
		}
		entries, err := v.List()
		if err != nil {
			return append(all, doctor.Finding{Level: doctor.Fail, Check: secretsCheck, Text: err.Error(), Do: "gridgate secret list"})
		}
		for _, e := range entries {
			all = appendProblem(all, status.Secret(e))
		}
		return all
	}
}

const secretsCheck = "secrets"

// appendProblem tells of a secret that cannot be used.
func appendProblem(all []doctor.Finding, s status.Secret) []doctor.Finding {
	if s.Problem == "" {
		return all
	}
	do := "gridgate secret set " + s.Name
	if s.Problem == vault.ErrNoIdentity.Error() {
		do = doctor.Remedy(s.Problem)
	}
	return append(all, doctor.Finding{Level: doctor.Fail, Check: secretsCheck, Text: s.Name + ": " + s.Problem, Do: do})
}

// toldSecrets gives what the agent tells of a store whose key it alone has.
func toldSecrets(secrets []status.Secret) (all []doctor.Finding) {
	for _, s := range secrets {
		all = appendProblem(all, s)
	}
	if len(all) == 0 {
		all = []doctor.Finding{{Level: doctor.OK, Check: secretsCheck, Text: "the service alone has the store's key, and reads what is in it"}}
	}
	return all
}
