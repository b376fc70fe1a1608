package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/device"
)

func newDeviceCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "device",
		GroupID: groupDevices,
		Short:   "Register, find, change, block and retire devices",
		Example: "  certwright device list --group hall-3\n  certwright device block sensor-17 --reason stolen",
	}
	conn := connect(env, cmd)
	return group(cmd, newDeviceListCommand(env, conn), newDeviceShowCommand(env, conn), newDeviceAddCommand(env, conn), newDeviceImportCommand(env, conn), newDeviceExportCommand(env, conn),
		newDeviceChangeCommand(env, conn), newDeviceBlockCommand(env, conn), newDeviceRetireCommand(env, conn), newDeviceUnblockCommand(env, conn))
}

// deviceFilter are the flags that say which devices are meant.
type deviceFilter struct {
	q                           client.DeviceQuery
	expires, seen, notSeenSince span
}

// deviceStatuses are those that the server knows.
var deviceStatuses = []string{"expected", "enrolled", "blocked", "retired"}

func deviceFlags(cmd *cobra.Command) *deviceFilter {
	s := &deviceFilter{}
	f := cmd.Flags()
	f.StringSliceVar(&s.q.Status, "status", nil, "only those in this `state`: expected, enrolled, blocked or retired; several are separated by commas")
	complete(cmd, "status", deviceStatuses...)
	f.StringVar(&s.q.Group, "group", "", "only those of the group with this `name`")
	f.StringVar(&s.q.Owner, "owner", "", "only those of the owner with this `name`")
	f.StringArrayVar(&s.q.Labels, "label", nil, "only those with this `label`, as in site=B; may be given several times")
	f.StringVar(&s.q.Point, "point", "", "only those that were seen last at the enrollment point with this `name`")
	f.Var(&s.expires, "expires-in", "only those whose certificate ends within this `time`, as in 30d")
	f.Var(&s.seen, "seen-within", "only those that were seen within this `time`, as in 7d")
	f.Var(&s.notSeenSince, "unseen-for", "only those that were not seen for this `time`, as in 90d")
	f.BoolVar(&s.q.Failing, "failing", false, "only those of which a request was refused since their newest certificate")
	return s
}

// query checks the flags and returns what they say.
func (s *deviceFilter) query(env *environment, cmd *cobra.Command, args []string) (client.DeviceQuery, error) {
	q, now := s.q, env.now()
	for _, status := range q.Status {
		if !slices.Contains(deviceStatuses, status) {
			return q, misuse(cmd, "", "--status %q is none of %s", status, strings.Join(deviceStatuses, ", "))
		}
	}
	q.Text = strings.Join(args, " ")
	if s.expires != 0 {
		q.NotAfterFrom, q.NotAfterTo = now, now.Add(time.Duration(s.expires))
	}
	if s.seen != 0 {
		q.SeenFrom = now.Add(-time.Duration(s.seen))
	}
	if s.notSeenSince != 0 {
		q.SeenBefore = now.Add(-time.Duration(s.notSeenSince))
	}
	return q, nil
}

func newDeviceListCommand(env *environment, conn *connection) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "list [TEXT]",
		Short: "List devices, in the order of their ids",
		Long: `List devices, in the order of their ids. TEXT is a part of the id, group, owner, labels or names, in any letter case.
All filters have to match.`,
		Example: `  certwright device list --group hall-3 --label site=B
  certwright device list --expires-in 30d --output name
  certwright device list --status enrolled --unseen-for 90d`,
		Args: takes("[TEXT]"),
	}
	s := deviceFlags(cmd)
	limitFlag(cmd, &limit, 50, "show at most this `number`; 0 shows all")
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		q, err := s.query(env, cmd, args)
		if err != nil {
			return err
		}
		list, more, err := pages(limit, func(n int, cursor string) ([]client.Device, string, error) {
			q.Limit, q.Cursor = n, cursor
			return api.Devices(cmd.Context(), q)
		})
		if err != nil {
			return err
		}
		if output.forPeople() {
			var rows [][]string
			for _, d := range list {
				rows = append(rows, []string{clip(d.ID, 40), d.Status, clip(d.Group, 20), clip(d.Owner, 20), stampOf(d.NotAfter), stampOf(d.LastSeenAt), failuresOf(d)})
			}
			err = table(env.out, []string{"ID", "STATUS", "GROUP", "OWNER", "ENDS (UTC)", "SEEN (UTC)", "REFUSED"}, rows)
		} else {
			err = output.write(env.out, struct {
				Devices []client.Device `json:"devices"`
			}{list}, namesOf(list, func(d client.Device) string { return d.ID })...)
		}
		if err == nil && more {
			note(env, "there are more: --limit 0 shows all")
		}
		return err
	})
	return cmd
}

func stampOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return stamp(*t)
}

func failuresOf(d client.Device) string {
	if d.Failures == 0 {
		return ""
	}
	return fmt.Sprintf("%d, %s", d.Failures, d.Failure)
}

func newDeviceShowCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a device: what is said of it, how it is, its certificates and open challenges",
		Example: "  certwright device show sensor-17\n  certwright device show sensor-17 --output json",
		Args:    takes("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		d, err := api.Device(cmd.Context(), args[0])
		if err == nil {
			err = writeDevice(env, output, d)
		}
		if err != nil || !output.forPeople() {
			return err
		}
		return writeBelongings(cmd.Context(), env, api, d)
	})
	return cmd
}

// shownBelongings is how many of a device's certificates and challenges are shown with it.
const shownBelongings = 10

// writeBelongings shows a device's newest certificates, past and present, and the challenges that it can use.
func writeBelongings(ctx context.Context, env *environment, api *client.Client, d client.Device) error {
	list, err := api.ListCertificates(ctx, client.CertificateQuery{Device: d.ID, Limit: shownBelongings})
	if err != nil {
		return err
	}
	challenges, moreChallenges, err := api.Challenges(ctx, client.ChallengeQuery{Device: d.ID, Open: true, Limit: shownBelongings})
	if err != nil {
		return err
	}
	if len(list.Certificates) > 0 {
		fmt.Fprintln(env.out)
		if err := writeCertificates(env, list.Certificates); err != nil {
			return err
		}
	}
	if len(challenges) > 0 {
		var rows [][]string
		for _, c := range challenges {
			rows = append(rows, []string{c.ID, c.Point, c.Subject, stamp(c.ExpiresAt)})
		}
		fmt.Fprintln(env.out)
		if err := table(env.out, []string{"OPEN CHALLENGE", "POINT", "SUBJECT", "ENDS (UTC)"}, rows); err != nil {
			return err
		}
	}
	if list.Next != "" {
		note(env, "there are more certificates: certwright cert list --device %s", quote(d.ID))
	}
	if moreChallenges != "" {
		note(env, "there are more challenges: certwright challenge list --device %s", quote(d.ID))
	}
	return nil
}

func writeDevice(env *environment, output *records, d client.Device) error {
	if !output.forPeople() {
		return output.write(env.out, d, d.ID)
	}
	moment := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return stampFor(*t, env.now())
	}
	var f fields
	f.add("Id", d.ID)
	status := d.Status
	if d.Reason != "" {
		status += ": " + d.Reason
	}
	if d.Revoking {
		status += " (certificates are still being revoked)"
	}
	f.add("Status", status)
	f.add("Group", d.Group)
	f.add("Owner", d.Owner)
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(d.Labels)) {
		labels = append(labels, name+"="+d.Labels[name])
	}
	f.add("Labels", labels...)
	f.add("Subject", d.Subject)
	f.add("Names", d.SANs...)
	f.add("Note", d.Note)
	f.add("Certificate", d.Serial)
	f.add("Ends", moment(d.NotAfter))
	f.add("First seen", moment(d.FirstSeenAt))
	f.add("Last seen", moment(d.LastSeenAt))
	f.add("From", d.LastSource)
	f.add("At point", d.LastPoint)
	for _, name := range slices.Sorted(maps.Keys(d.Protocol)) {
		f.add("Client's "+strings.ReplaceAll(name, "_", " "), d.Protocol[name])
	}
	if d.Failures > 0 {
		f.add("Refused", fmt.Sprintf("%d requests since the newest certificate, %d of them renewals; the last: %s", d.Failures, d.RenewalFailures, d.Failure))
	}
	f.add("Version", fmt.Sprintf("%d, of %s by %s", d.Version, stamp(d.ChangedAt), d.ChangedBy))
	return f.write(env.out)
}

// deviceSayings are the flags for what people say of a device.
func deviceSayings(cmd *cobra.Command, r *client.DeviceRequest) *[]string {
	f := cmd.Flags()
	f.StringVar(&r.Group, "group", "", "put it into the group with this `name`")
	f.StringVar(&r.Owner, "owner", "", "give it the owner with this `name`")
	labels := f.StringArray("label", nil, "give it this `label`, as in site=B; may be given several times")
	f.StringVar(&r.Subject, "subject", "", "allow its certificates this `subject` alone, as in CN=sensor-17,O=Example")
	f.StringArrayVar(&r.SANs, "san", nil, "allow its certificates exactly this `name`, as in DNS:s17.example.com; may be given several times")
	f.StringVar(&r.Note, "note", "", "a `text` for people")
	return labels
}

// setLabels adds labels of the command line; one without a value is taken away.
func setLabels(cmd *cobra.Command, r *client.DeviceRequest, labels []string) error {
	for _, text := range labels {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return misuse(cmd, "", "--label %s: labels are written as in site=B", text)
		}
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		if r.Labels[name] = value; value == "" {
			delete(r.Labels, name)
		}
	}
	return nil
}

func newDeviceAddCommand(env *environment, conn *connection) *cobra.Command {
	var r client.DeviceRequest
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Register a device that is expected",
		Long: `Register a device that is expected. A device also comes into the registry by itself, with its first challenge or
certificate; to register it before says what group it is in, and what its certificates may name.`,
		Example: "  certwright device add sensor-17 --group hall-3 --label site=B\n  certwright device add sensor-17 --subject CN=sensor-17 --san DNS:s17.example.com",
		Args:    takes("ID"),
	}
	labels := deviceSayings(cmd, &r)
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		if err := setLabels(cmd, &r, *labels); err != nil {
			return err
		}
		r.ID = args[0]
		d, err := api.CreateDevice(cmd.Context(), r)
		if err != nil {
			return err
		}
		return writeDevice(env, output, d)
	})
	return cmd
}

func newDeviceChangeCommand(env *environment, conn *connection) *cobra.Command {
	var r client.DeviceRequest
	cmd := &cobra.Command{
		Use:   "change ID",
		Short: "Change what is said of a device",
		Long: `Change what is said of a device. What no flag names stays; an empty value takes away, as in --owner "" or --label site=.
--san replaces all names.`,
		Example: "  certwright device change sensor-17 --group hall-4\n  certwright device change sensor-17 --label site= --owner \"\"",
		Args:    takes("ID"),
	}
	labels := deviceSayings(cmd, &r)
	output := outputFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		if !slices.ContainsFunc([]string{"group", "owner", "label", "subject", "san", "note"}, cmd.Flags().Changed) {
			return misuse(cmd, "", "nothing is named that would change")
		}
		d, err := api.Device(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		said := client.DeviceRequest{Group: d.Group, Owner: d.Owner, Labels: d.Labels, Subject: d.Subject, SANs: d.SANs, Note: d.Note}
		for name, set := range map[string]func(){
			"group": func() { said.Group = r.Group }, "owner": func() { said.Owner = r.Owner }, "subject": func() { said.Subject = r.Subject },
			"san": func() { said.SANs = slices.DeleteFunc(r.SANs, func(s string) bool { return s == "" }) }, "note": func() { said.Note = r.Note },
		} {
			if cmd.Flags().Changed(name) {
				set()
			}
		}
		if err := setLabels(cmd, &said, *labels); err != nil {
			return err
		}
		if d, err = api.PutDevice(cmd.Context(), d.ID, d.Version, said); err != nil {
			return err
		}
		return writeDevice(env, output, d)
	})
	return cmd
}

const (
	importStep  = 500
	importBytes = 128 << 10 // of what people say, in one request
)

func newDeviceImportCommand(env *environment, conn *connection) *cobra.Command {
	var skip, check bool
	format := &choice{value: "auto", allowed: []string{"auto", "csv", "jsonl"}}
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Register many devices from CSV or JSON lines",
		Long: `Register many devices from CSV or JSON lines; - reads the standard input, as CSV unless --format says otherwise.

The first line of CSV names the columns: id, group, owner, labels, subject, sans, note, and label:NAME for one label.
Only id is required. Labels are written as in site=B;rack=7, several names with spaces between. Columns of a report that
«certwright device export» wrote and that say how a device is are left alone.

The whole file is read and checked before anything is sent; then the devices go in parts of at most 500, each all or
none. An import that was broken off goes on with --skip-existing.`,
		Example: "  certwright device import devices.csv\n  certwright device import devices.jsonl --check\n  certwright device import devices.csv --skip-existing",
		Args:    takes("FILE"),
	}
	f := cmd.Flags()
	f.BoolVar(&skip, "skip-existing", false, "leave devices that are there as they are, instead of refusing")
	f.BoolVar(&check, "check", false, "only read and check the file")
	f.Var(format, "format", "csv or jsonl; auto goes by the file's name")
	complete(cmd, "format", format.allowed...)
	send := func(cmd *cobra.Command, api *client.Client, entries []client.DeviceRequest) error {
		progress := newMeter(env)
		defer progress.end()
		created, skipped := 0, 0
		for rest := entries; len(rest) > 0; {
			n := partOf(rest)
			c, s, err := api.ImportDevices(cmd.Context(), rest[:n], skip)
			if err != nil {
				progress.end()
				if created+skipped > 0 || len(rest) > n {
					note(env, "%d of %d devices are registered; the others are not", created+skipped, len(entries))
				}
				refused, ok := errors.AsType[*client.Error](err)
				if !skip && (created > 0 || ok && refused.Status == http.StatusConflict) {
					return &hintError{err: err, hint: "--skip-existing leaves devices that are there as they are"}
				}
				return err
			}
			created, skipped, rest = created+c, skipped+s, rest[n:]
			progress.show("devices", int64(created+skipped), int64(len(entries)))
		}
		progress.end()
		fmt.Fprintf(env.out, "%d devices are registered, %d were there before\n", created, skipped)
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		entries, err := readDevices(env, args[0], format.value)
		if err != nil {
			return err
		}
		if check {
			fmt.Fprintf(env.out, "%d devices, and nothing is wrong with the file\n", len(entries))
			return nil
		}
		return conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error { return send(cmd, api, entries) })(cmd, args)
	}
	return cmd
}

// partOf is how many devices go into the next request.
func partOf(rest []client.DeviceRequest) int {
	size := 0
	for n, r := range rest[:min(importStep, len(rest))] {
		size += 100 + 2*(len(r.ID)+len(r.Group)+len(r.Owner)+len(r.Subject)+len(r.Note)+len(strings.Join(r.SANs, "   "))+len(device.FormatLabels(r.Labels)))
		if size > importBytes && n > 0 {
			return n
		}
	}
	return min(importStep, len(rest))
}

// readDevices reads a whole file. It tells of the first lines that are wrong, and of ids that stand twice.
func readDevices(env *environment, name, format string) ([]client.DeviceRequest, error) {
	in := env.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	var read func(io.Reader) iter.Seq2[device.Entry, error] = device.ReadCSV
	if format == "jsonl" || format == "auto" && (strings.HasSuffix(name, ".jsonl") || strings.HasSuffix(name, ".ndjson") || strings.HasSuffix(name, ".json")) {
		read = device.ReadLines
	}
	const shown = 10
	var all []client.DeviceRequest
	var wrong []string
	bad := 0
	seen := map[string]bool{}
	for e, err := range read(in) {
		if err == nil && seen[e.ID] {
			err = fmt.Errorf("the id %q stands twice", e.ID)
		}
		if err != nil {
			if bad++; bad <= shown {
				wrong = append(wrong, err.Error())
			}
			continue
		}
		seen[e.ID] = true
		all = append(all, client.DeviceRequest(e))
	}
	switch {
	case bad > shown:
		wrong = append(wrong, fmt.Sprintf("and %d more", bad-shown))
		fallthrough
	case bad > 0:
		return nil, &hintError{err: fmt.Errorf("%s: %s", name, strings.Join(wrong, "; ")), hint: "nothing was sent; mend the file, or try it with --check"}
	case len(all) == 0:
		return nil, errors.New("there is no device in " + name)
	}
	return all, nil
}

func newDeviceExportCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [TEXT]",
		Short: "Write all devices that match as CSV or JSON lines, however many",
		Long: `Write all devices that match, in the order of their ids, as CSV for spreadsheets or as JSON lines for programs. With -o
the file appears when it is complete. In CSV a cell that a spreadsheet could take for a formula has an apostrophe before
it; «certwright device import» takes it away.`,
		Example: "  certwright device export -o devices.csv\n  certwright device export --group hall-3 --format jsonl > hall-3.jsonl",
		Args:    takes("[TEXT]"),
	}
	s := deviceFlags(cmd)
	r := reportFlags(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		q, err := s.query(env, cmd, args)
		if err != nil {
			return err
		}
		return r.write(env, func(format string, w io.Writer) error { return api.ExportDevices(cmd.Context(), format, q, w) })
	})
	return cmd
}

func endFlags(cmd *cobra.Command, r *client.EndDeviceRequest, usual string) {
	f := cmd.Flags()
	f.StringVar(&r.Reason, "reason", "", "why, a `text` for people")
	var names []string
	for _, reason := range device.EndReasons() {
		names = append(names, reason.String())
	}
	f.StringVar(&r.RevocationReason, "revocation-reason", "", "revoke its certificates with this `reason` (default "+usual+")")
	complete(cmd, "revocation-reason", names...)
}

func newDeviceBlockCommand(env *environment, conn *connection) *cobra.Command {
	var r client.EndDeviceRequest
	cmd := &cobra.Command{
		Use:   "block ID",
		Short: "Block a device that is stolen or misused, and revoke its certificates",
		Long: `Block a device that is stolen or misused. From then on nothing is issued to it, whatever it shows; its challenges
end, and its certificates are revoked: with keyCompromise, which also blocks their keys in every protocol, unless
--revocation-reason says otherwise. «certwright device unblock» puts it back into use; its certificates stay revoked.`,
		Example: "  certwright device block sensor-17 --reason \"stolen from hall 3\"",
		Args:    takes("ID"),
	}
	endFlags(cmd, &r, "keyCompromise")
	cmd.RunE = endDevice(env, conn, func(ctx context.Context, api *client.Client, id string) (client.Device, error) {
		return api.BlockDevice(ctx, id, r)
	})
	return cmd
}

func newDeviceRetireCommand(env *environment, conn *connection) *cobra.Command {
	var r client.EndDeviceRequest
	cmd := &cobra.Command{
		Use:   "retire ID",
		Short: "Take a device out of use, and revoke its certificates",
		Long: `Take a device out of use. From then on nothing is issued to it; its challenges end, and its certificates are revoked,
with cessationOfOperation unless --revocation-reason says otherwise. «certwright device unblock» puts it back into use;
its certificates stay revoked. «certwright device block» is for one that is stolen.`,
		Example: "  certwright device retire sensor-17 --reason scrapped",
		Args:    takes("ID"),
	}
	endFlags(cmd, &r, "cessationOfOperation")
	cmd.RunE = endDevice(env, conn, func(ctx context.Context, api *client.Client, id string) (client.Device, error) {
		return api.RetireDevice(ctx, id, r)
	})
	return cmd
}

func newDeviceUnblockCommand(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unblock ID",
		Short: "Put a device that is blocked or retired back into use",
		Long: `Put a device that is blocked or retired back into use. Its certificates stay revoked: it needs a new challenge, and a
new key if its keys were blocked (keyCompromise).`,
		Example: "  certwright device unblock sensor-17",
		Args:    takes("ID"),
	}
	cmd.RunE = endDevice(env, conn, func(ctx context.Context, api *client.Client, id string) (client.Device, error) {
		return api.UnblockDevice(ctx, id)
	})
	return cmd
}

func endDevice(env *environment, conn *connection, end func(context.Context, *client.Client, string) (client.Device, error)) func(*cobra.Command, []string) error {
	return conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		d, err := end(cmd.Context(), api, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(env.out, "device %s is %s\n", visible(d.ID), d.Status)
		if d.Revoking {
			note(env, "not every certificate of it is revoked yet; the server goes on with that by itself")
		}
		return nil
	})
}

func newFleetCommand(env *environment) *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use:     "fleet",
		GroupID: groupDevices,
		Short:   "Tell how the fleet stands: devices by group, certificates that end, requests that were refused",
		Long: `Tell how the fleet stands. For each group: how many devices there are by status; of those in use how many have a newest
certificate that has ENDED, ends within 7, 30 or 90 days, or is REVOKED; of how many a request was refused since their
newest certificate (FAILING), and of how many that was a renewal (RENEWALS): those will stand still when it ends.

Below are the requests that were refused, by day, enrollment point and reason. «certwright device list --failing» and
«certwright device list --expires-in 30d» name the devices.`,
		Example: "  certwright fleet\n  certwright fleet --days 30 --output json",
		Args:    takes(),
	}
	conn := connect(env, cmd)
	cmd.Flags().IntVar(&days, "days", 7, "count refused requests of this `number` of days")
	output := documentFlag(cmd)
	cmd.RunE = conn.call(func(cmd *cobra.Command, api *client.Client, _ []string) error {
		if days < 1 || days > 366 {
			return misuse(cmd, "", "--days: 1 to 366")
		}
		f, err := api.Fleet(cmd.Context(), days)
		if err != nil {
			return err
		}
		if !output.forPeople() {
			return output.write(env.out, f)
		}
		var rows [][]string
		for _, g := range f.Groups {
			row := []string{clip(orDash(g.Group), 30)}
			for _, n := range []int{
				g.Status["expected"], g.Status["enrolled"], g.Status["blocked"], g.Status["retired"], g.Ended, g.In7, g.In30, g.In90, g.Revoked, g.Failing, g.FailingRenewals,
			} {
				row = append(row, fmt.Sprint(n))
			}
			rows = append(rows, row)
		}
		heading := []string{"GROUP", "EXPECTED", "ENROLLED", "BLOCKED", "RETIRED", "ENDED", "IN 7D", "IN 30D", "IN 90D", "REVOKED", "FAILING", "RENEWALS"}
		if err := table(env.out, heading, rows); err != nil || len(f.Refusals) == 0 {
			return err
		}
		fmt.Fprintln(env.out)
		rows = nil
		for _, r := range f.Refusals {
			rows = append(rows, []string{r.Day, r.Point, r.Kind, r.Reason, fmt.Sprint(r.Number)})
		}
		return table(env.out, []string{"DAY (UTC)", "POINT", "REQUEST", "REFUSED FOR", "NUMBER"}, rows)
	})
	return cmd
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
