package ca

import "context"

// Judge goes the way of Issue with a request that somebody is to decide on later, and refuses what would be refused
// whoever decides: for its key, its names, or what else it wants. Nobody need look at it then. That the issuer cannot issue
// now, and conditions on who asks, and when, are left aside. Errors are those of Issue; nothing is recorded.
func (a *Authority) Judge(r Request) error {
	p, err := a.Profile(r.Profile)
	if err != nil {
		return err
	}
	key, err := a.admit(p, r)
	if err != nil {
		return err
	}
	r.undecided = true
	_, _, err = a.prepare(key, p, r, r.CSR.PublicKey, r.CSR.SPKI, a.cfg.Clock.Now())
	return err
}

// JudgeRenewal is to Renew what Judge is to Issue.
func (a *Authority) JudgeRenewal(ctx context.Context, r RenewRequest) error {
	s, err := a.successor(ctx, r)
	if err != nil {
		return err
	}
	s.request.undecided = true
	_, _, err = a.prepare(s.key, s.profile, s.request, s.pub, s.spki, a.cfg.Clock.Now())
	return err
}
