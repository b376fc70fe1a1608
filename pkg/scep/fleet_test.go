package scep_test

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
)

// fleetDays is how long a simulated fleet lives: three years.
const fleetDays = 3 * 365

// TestFleet is a fleet over three years: devices enroll with one-time challenges and renew, are off for a day or half a
// year, are wiped, stolen, held, blocked and retired; answers get lost, thieves try what they have, and the RA gets a new
// key in the middle. Each answer is held to the policy (judge_test.go): no device is bricked that it allows, and none is
// served that it forbids. The ledger tells what happened.
//
// CERTWRIGHT_TEST_DEVICES=10000 is the full number.
func TestFleet(t *testing.T) {
	t.Parallel()
	n := 60
	if raceDetector {
		n = 25
	}
	if text := os.Getenv("CERTWRIGHT_TEST_DEVICES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("CERTWRIGHT_TEST_DEVICES=%q is no number of devices", text)
		}
	}
	began := time.Now()
	f := &fleet{stage: newStage(newRigAt(t, keys.P256, time.Date(2027, 1, 4, 8, 0, 0, 0, time.UTC))), ledger: map[string]int{}}
	f.open()
	for i := range n {
		d := &fleetDevice{
			fleet: f, id: fmt.Sprintf("d%05d.fleet.example.com", i), r: rand.New(rand.NewPCG(uint64(i), 6)),
			point: []string{"default", "default", "default", "careful", "strict"}[i%5],
		}
		d.next, d.todo = d.r.IntN(min(400, 4*n)), d.joins // they come in the first year
		f.devices = append(f.devices, d)
	}
	for day := range fleetDays {
		f.day = day
		f.later(24*time.Hour - time.Duration(f.shift.Load())%(24*time.Hour)) // the next morning
		if day == fleetDays/2 {
			f.rotate()
		}
		var due []*fleetDevice
		for _, d := range f.devices {
			if d.next == day {
				due = append(due, d)
			}
		}
		if err := f.live(due); err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
		if n >= 1000 && day%100 == 99 {
			t.Logf("%d days, %d certificates, %s", day+1, f.world.issued, time.Since(began).Round(time.Second))
		}
	}
	f.close(time.Since(began))
}

// fleet is the devices, what their operators do, and the ledger.
type fleet struct {
	*stage
	devices []*fleetDevice
	day     int
	turned  time.Time // when the RA's key was replaced
	mu      sync.Mutex
	ledger  map[string]int // guarded by mu
}

func (f *fleet) open() {
	f.t.Helper()
	registered := enrollment.DeviceRules{Registered: true, Identity: enrollment.IdentityCommonName}
	for name, c := range map[string]enrollment.Config{
		// Nobody is let in by hand unless he was away for long.
		"default": {Device: registered, Return: enrollment.ReturnRules{Policy: enrollment.ReturnGrace}},
		// Each enrollment is looked at, and so is whoever has lost his certificate or let it end.
		"careful": {Device: registered, Approval: true, Replacement: enrollment.ReplacePending, PendingLife: 0},
		// Keys change each time, a certificate that has ended is worth nothing, and an old one goes when there is a new one.
		"strict": {
			Device: registered, Renewal: enrollment.RenewalRules{NewKey: true}, Return: enrollment.ReturnRules{Policy: enrollment.ReturnRefuse},
			Replacement: enrollment.ReplaceRevoke, Subject: "CN={device}", SANs: []string{"DNS:{device}"},
		},
	} {
		if err := f.setPoint(name, &gate{config: c}); err != nil {
			f.t.Fatal(err)
		}
	}
}

// note writes into the ledger.
func (f *fleet) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ledger[fmt.Sprintf(format, args...)]++
}

// rotate gives the RA a new key. Devices learn of it when they ask.
func (f *fleet) rotate() {
	f.t.Helper()
	i, err := f.issuers.Current().Issuer("")
	if err == nil {
		err = f.ra.Rotate(f.t.Context(), i, pki.System())
	}
	if err == nil {
		err = f.sync(f.t.Context())
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.turned = f.now()
	f.note("the RA got a new key")
}

// live has devices do what is due, some at a time.
func (f *fleet) live(due []*fleetDevice) error {
	queue := make(chan *fleetDevice)
	var crowd sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		crowd.Go(func() {
			for d := range queue {
				if errs[i] == nil {
					if err := d.todo(); err != nil {
						errs[i] = fmt.Errorf("device %s at %s: %w", d.id, d.point, err)
					}
				}
			}
		})
	}
	for _, d := range due {
		queue <- d
	}
	close(queue)
	crowd.Wait()
	return errors.Join(errs...)
}

// close looks at every device once more, and prints the ledger.
func (f *fleet) close(took time.Duration) {
	f.t.Helper()
	now := f.now()
	census := map[string]int{}
	for _, d := range f.devices {
		record, err := f.store.Device(f.t.Context(), d.id)
		state := "never came"
		switch {
		case err == nil && !record.Status.Served():
			state = record.Status.String()
		case d.cert != nil && !d.cert.void && !d.cert.ended(now):
			state = "has a good certificate"
			if fingerprint(d.cert.cert) != record.Certificate && !d.robbed {
				f.t.Errorf("device %s: the registry has another certificate as its newest", d.id)
			}
		case d.waiting != nil:
			state = "waits for a person"
		case d.away:
			state = "is away, with a certificate that has ended"
		case d.next > f.day:
			state = "is being helped, or on hold"
		default:
			state = "BRICKED"
			f.t.Errorf("device %s has no good certificate, is served, and nothing is under way", d.id)
		}
		census[state]++
	}
	f.t.Logf("%d devices, %d days, %d certificates, in %s", len(f.devices), fleetDays, f.world.issued, took.Round(time.Second))
	for _, k := range slices.Sorted(maps.Keys(f.ledger)) {
		f.t.Logf("%7d  %s", f.ledger[k], k)
	}
	f.t.Log("at the end")
	for _, k := range slices.Sorted(maps.Keys(census)) {
		f.t.Logf("%7d  %s", census[k], k)
	}
}

// fleetDevice is a device and whoever has stolen from it.
type fleetDevice struct {
	*fleet
	id, point string
	r         *rand.Rand
	next      int          // the day on which something is due
	todo      func() error // what that is
	key       *rsa.PrivateKey
	cert      *held
	token     *token
	waiting   *memory
	last      ask
	known     *x509.Certificate // the RA's, as it was when the device asked
	away      bool
	robbed    bool    // a thief has renewed
	old       []*held // what it has had before
}

// in has something done after some days.
func (d *fleetDevice) in(days int, what func() error) { d.next, d.todo = d.day+max(1, days), what }

func (d *fleetDevice) chance(percent int) bool { return d.r.IntN(100) < percent }

// meet asks for the RA's certificate.
func (d *fleetDevice) meet() error {
	var err error
	d.known, _, err = d.raCertificate()
	return err
}

// send sends a request, and learns the RA's certificate anew if it is told to.
func (d *fleetDevice) send(story string, a ask) (outcome, error) {
	d.later(time.Millisecond)
	if d.known == nil {
		if err := d.meet(); err != nil {
			return outcome{}, err
		}
	}
	out, err := d.try(a, d.known, nil)
	if errors.Is(err, errOldRA) {
		d.note("asked for the RA's certificate again, since its old key is gone")
		if d.turned.IsZero() || d.now().Before(d.turned.Add(100*24*time.Hour)) {
			return out, errors.New("the RA's old key is gone too early")
		}
		if err := d.meet(); err != nil {
			return out, err
		}
		out, err = d.try(a, d.known, nil)
	}
	if err != nil {
		return out, fmt.Errorf("%s: %w", story, err)
	}
	result := map[string]string{"0": "served", "2": "refused", "3": "waits"}[out.Status]
	if out.again {
		result = "given again"
	}
	d.note("%-8s %-42s %-11s %s", d.point, story, result, out.verdict.rule)
	return out, nil
}

// took has the device go on with a certificate.
func (d *fleetDevice) took(h *held) {
	if d.cert != nil {
		d.old = append(d.old, d.cert)
	}
	d.cert, d.key, d.waiting, d.away, d.robbed = h, h.key, nil, false, false
	d.plan()
}

// plan draws what is next for a device that has a good certificate.
func (d *fleetDevice) plan() {
	left := int(d.cert.cert.NotAfter.Sub(d.now()) / (24 * time.Hour))
	if left < 20 { // of an offline return
		d.in(left/2+1+d.r.IntN(max(1, left/3)), d.renews)
		return
	}
	soon := left*55/100 + d.r.IntN(left*35/100)
	switch x := d.r.IntN(100); {
	case x < 12: // off when it was time
		d.away = true
		gone := 1 + d.r.IntN(25)
		if d.chance(40) {
			gone = 31 + d.r.IntN(150)
		}
		d.in(left+gone, d.comesBack)
	case x < 17:
		d.in(d.r.IntN(left), d.wiped)
	case x < 21:
		d.in(d.r.IntN(left), d.stolen)
	case x < 23:
		d.in(d.r.IntN(left), d.onHold)
	case x < 24:
		d.in(d.r.IntN(left), d.retired)
	case x < 30:
		d.in(left*d.r.IntN(40)/100, d.early)
	default:
		d.in(soon, d.renews)
	}
}

// invited has an operator make a challenge for the device.
func (d *fleetDevice) invited() error {
	d.token = &token{point: d.point, device: d.id, ends: d.now().Add(30 * 24 * time.Hour)}
	if d.chance(50) {
		d.token.cn = d.id
	}
	if d.chance(50) {
		d.token.sans = []string{d.id}
	}
	return d.newToken(d.token)
}

func (d *fleetDevice) request() ask {
	return ask{point: d.point, kind: "19", id: newID(), key: d.key, cn: d.id, sans: []string{d.id}}
}

// joins is the first enrollment.
func (d *fleetDevice) joins() error {
	if d.chance(10) { // a stranger, before anybody has heard of the device
		d.key = simulatedKeys().Next()
		a := d.request()
		a.challenge = "AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAAAAAA"
		if _, err := d.send("a stranger guesses a challenge", a); err != nil {
			return err
		}
	}
	if err := d.invited(); err != nil {
		return err
	}
	if d.chance(5) { // too late
		d.in(31+d.r.IntN(10), d.tooLate)
		return nil
	}
	return d.enrolls("enrolls")
}

func (d *fleetDevice) tooLate() error {
	d.key = simulatedKeys().Next()
	a := d.request()
	a.challenge = d.token.text
	if _, err := d.send("enrolls with a challenge that is over", a); err != nil {
		return err
	}
	if err := d.invited(); err != nil {
		return err
	}
	return d.enrolls("enrolls")
}

// enrolls uses the device's challenge with a new key.
func (d *fleetDevice) enrolls(story string) error {
	d.key = simulatedKeys().Next()
	a := d.request()
	a.challenge = d.token.text
	if d.chance(5) { // in vain, for another device
		wrong := a
		wrong.id, wrong.cn, wrong.sans = newID(), "other."+d.id, []string{"other." + d.id}
		if d.token.cn != "" || d.token.sans != nil || d.point == "strict" {
			if _, err := d.send("asks for another device's names", wrong); err != nil {
				return err
			}
		}
	}
	return d.sends(story, a)
}

// sends sends a request that is the device's own, and goes on with what comes of it.
func (d *fleetDevice) sends(story string, a ask) error {
	out, err := d.send(story, a)
	if err != nil {
		return err
	}
	d.last = a
	if out.Status == "0" && d.chance(5) { // the answer was lost
		again, err := d.send("asks again, the answer was lost", a)
		if err != nil {
			return err
		}
		if again.Status != "0" || !again.again {
			return fmt.Errorf("the same request got %s", again.Answer)
		}
	}
	if a.challenge != "" && out.Status != "2" && d.chance(10) {
		thief := ask{point: d.point, kind: "19", id: newID(), key: simulatedKeys().Next(), cn: d.id, sans: []string{d.id}, challenge: a.challenge}
		if _, err := d.send("a thief uses its challenge once more", thief); err != nil {
			return err
		}
	}
	switch {
	case out.Status == "0":
		d.took(out.got)
	case out.Status == "3":
		d.mu.Lock()
		d.stage.mu.Lock()
		d.waiting = d.world.rows[d.world.row(a)]
		d.stage.mu.Unlock()
		d.mu.Unlock()
		d.in(1+d.r.IntN(5), d.decided)
	case strings.HasPrefix(out.verdict.rule, "2.2"): // too early
		d.plan()
	default: // somebody has to help
		d.in(1+d.r.IntN(20), d.helped)
	}
	return nil
}

// helped gives the device a new challenge: what is left when nothing else is.
func (d *fleetDevice) helped() error {
	d.stage.mu.Lock()
	served := d.world.served(d.id)
	d.stage.mu.Unlock()
	if !served {
		d.next = -1
		return nil
	}
	if err := d.invited(); err != nil {
		return err
	}
	d.note("%-8s an operator made a new challenge", d.point)
	return d.enrolls("enrolls anew, helped by an operator")
}

// decided is the operator's word on a request that waits, or nobody's.
func (d *fleetDevice) decided() error {
	m := d.waiting
	switch {
	case d.chance(10): // nobody looks for so long that it is over
		d.in(8, d.forgotten)
		return nil
	case d.robbed: // the operator sees that somebody else has renewed
		d.note("%-8s an operator found a theft", d.point)
		return d.blocked()
	}
	yes := d.chance(85)
	h, err := d.decide(m, yes)
	if err != nil {
		return err
	}
	d.later(time.Millisecond)
	answer, err := d.poll(m, d.known, d.known)
	if err != nil {
		return err
	}
	switch {
	case yes && h == nil: // what refuses now
		d.note("%-8s an approval came to nothing", d.point)
	case yes && answer.Status != "0":
		return fmt.Errorf("the device polls for what was approved: %s", answer)
	case yes:
		d.note("%-8s approved, and fetched by polling", d.point)
		d.took(h)
		return nil
	case answer.Status != "2":
		return fmt.Errorf("the device polls for what was denied: %s", answer)
	default:
		d.note("%-8s denied, and told when it polled", d.point)
	}
	d.waiting = nil
	d.in(1+d.r.IntN(10), d.helped)
	return nil
}

func (d *fleetDevice) forgotten() error {
	d.later(time.Millisecond)
	answer, err := d.poll(d.waiting, d.known, d.known)
	if err != nil {
		return err
	}
	if answer.Status != "2" {
		return fmt.Errorf("the device polls for what nobody has decided in time: %s", answer)
	}
	if h, err := d.decide(d.waiting, true); err != nil || h != nil {
		return fmt.Errorf("what had waited too long was approved: %w", err)
	}
	d.note("%-8s nobody decided in time", d.point)
	d.waiting = nil
	return d.helped()
}

// renewal is a request to renew the certificate that the device has.
func (d *fleetDevice) renewal() ask {
	a := d.request()
	a.signer, a.key = d.cert, d.cert.key
	if a.kind = "17"; d.chance(50) {
		a.kind = "19"
	}
	if d.point == "strict" || d.chance(30) {
		a.key = simulatedKeys().Next()
	}
	if d.chance(30) {
		d.known = nil
	}
	return a
}

func (d *fleetDevice) renews() error {
	if d.point == "strict" && d.chance(10) { // an old client
		a := d.renewal()
		a.key = d.cert.key
		if _, err := d.send("renews with the key that it has", a); err != nil {
			return err
		}
	}
	return d.sends("renews", d.renewal())
}

// early tries before it is time, or with a certificate that was renewed.
func (d *fleetDevice) early() error {
	a := d.renewal()
	if len(d.old) > 0 && d.chance(60) {
		a.signer = d.old[d.r.IntN(len(d.old))]
		a.key = a.signer.key
		if d.point == "strict" {
			a.key = simulatedKeys().Next()
		}
		out, err := d.send("a thief renews with an old certificate", a)
		if err != nil {
			return err
		}
		if err := d.neverMind(a, out); err != nil {
			return err
		}
	} else if out, err := d.send("renews early", a); err != nil {
		return err
	} else if out.Status == "0" { // it was time
		d.took(out.got)
		return nil
	} else if err := d.neverMind(a, out); err != nil {
		return err
	}
	d.plan()
	return nil
}

// neverMind denies what a thief's request waits for.
func (d *fleetDevice) neverMind(a ask, out outcome) error {
	if out.Status != "3" {
		return nil
	}
	d.stage.mu.Lock()
	m := d.world.rows[d.world.row(a)]
	d.stage.mu.Unlock()
	_, err := d.decide(m, false)
	return err
}

// comesBack is the offline return.
func (d *fleetDevice) comesBack() error {
	days := int(d.now().Sub(d.cert.cert.NotAfter) / (24 * time.Hour))
	story := "comes back within 30 days of the end"
	if days >= 30 {
		story = "comes back later than 30 days after the end"
	}
	d.away = false
	return d.sends(story, d.renewal())
}

// wiped loses key and certificate.
func (d *fleetDevice) wiped() error {
	if err := d.invited(); err != nil {
		return err
	}
	lost := d.cert
	if err := d.enrolls("enrolls anew after a wipe"); err != nil {
		return err
	}
	if d.chance(50) { // what was on its disk
		a := d.request()
		a.signer, a.key, a.kind = lost, lost.key, "17"
		if d.point == "strict" {
			a.key = simulatedKeys().Next()
		}
		out, err := d.send("a thief renews with what a wiped device had", a)
		if err != nil {
			return err
		}
		if out.Status == "0" { // while the new request waits, the old certificate is the device's own
			d.robbed = true
			return nil
		}
		return d.neverMind(a, out)
	}
	return nil
}

// stolen has a thief copy everything. He renews if he can; nobody can tell him from the device until one of them comes
// too late.
func (d *fleetDevice) stolen() error {
	a := d.renewal()
	out, err := d.send("a thief renews with a copy of the key", a)
	if err != nil {
		return err
	}
	if d.robbed = out.Status == "0"; d.robbed && d.chance(50) {
		// The device comes when it is time, and finds that it is not the newest.
		d.in(1, d.renews)
		return nil
	}
	d.note("%-8s a theft was reported", d.point)
	return d.blocked()
}

// blocked takes the device out of service: nothing that anybody has is worth anything.
func (d *fleetDevice) blocked() error {
	if err := d.block(d.id); err != nil {
		return err
	}
	for _, story := range []string{"renews after it was blocked", "a thief renews after it was blocked"} {
		if out, err := d.send(story, d.renewal()); err != nil || out.Status != "2" {
			return errors.Join(err, fmt.Errorf("%s", out.Answer))
		}
	}
	if d.waiting != nil { // what waited when it was blocked
		if h, err := d.decide(d.waiting, true); err != nil || h != nil {
			return fmt.Errorf("a blocked device's request was approved: %w", err)
		}
		d.waiting = nil
	}
	if d.chance(20) { // for good
		d.next = -1
		return nil
	}
	d.in(1+d.r.IntN(30), d.recovered)
	return nil
}

// recovered puts the device back into use, with a new key.
func (d *fleetDevice) recovered() error {
	if err := d.changeDevice(d.id, pki.DeviceEnrolled, known{}); err != nil {
		return err
	}
	if out, err := d.send("a thief renews after it was unblocked", d.renewal()); err != nil || out.Status != "2" {
		return errors.Join(err, fmt.Errorf("%s", out.Answer))
	}
	d.robbed = false
	d.note("%-8s unblocked", d.point)
	return d.helped()
}

func (d *fleetDevice) onHold() error {
	if err := d.setStatus(d.cert, pki.OnHold); err != nil {
		return err
	}
	if out, err := d.send("renews while on hold", d.renewal()); err != nil || out.Status != "2" {
		return errors.Join(err, fmt.Errorf("%s", out.Answer))
	}
	d.in(1+d.r.IntN(20), d.released)
	return nil
}

func (d *fleetDevice) released() error {
	if err := d.setStatus(d.cert, pki.Good); err != nil {
		return err
	}
	d.note("%-8s released from hold", d.point)
	if d.cert.ended(d.now()) {
		return d.comesBack()
	}
	d.plan()
	return nil
}

func (d *fleetDevice) retired() error {
	if err := d.changeDevice(d.id, pki.DeviceRetired, known{}); err != nil {
		return err
	}
	d.next = -1
	if out, err := d.send("renews after it was retired", d.renewal()); err != nil || out.Status != "2" {
		return errors.Join(err, fmt.Errorf("%s", out.Answer))
	}
	return nil
}
