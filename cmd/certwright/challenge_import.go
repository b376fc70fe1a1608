package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/document"
)

const (
	// maxImport is how many challenges are made at once.
	maxImport = 1_000_000
	// importAtOnce is how many the server makes for one request.
	importAtOnce = 1000
)

// importColumns are what a file of devices may have. The first line names them, in any order.
var importColumns = []string{"device", "subject", "sans", "profile", "validity", "note"}

func newChallengeImportCommand(env *environment, conn *connection) *cobra.Command {
	var r client.CreateChallengeRequest
	var out, batch string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make a one-time challenge for each device of a CSV file",
		Long: `Make a one-time challenge for each device of a CSV file, and write their texts to another. FILE is - for the standard
input. Its first line names the columns: device, subject, sans (several names with spaces), profile, validity, note; any
of them, in any order, with «;» or tabs in place of commas if it has those. A file that «certwright device import»
reads, or «certwright device export» has written, does as well: its id is the device, and its other columns are left
alone.

Everything is checked first: one line with a mistake, and nothing is made. What is made is written as it comes, and is
on disk before more are asked for. All belong to one batch, by which they are listed and revoked together.

In the written file a cell that a spreadsheet could take for a formula has an apostrophe before it.`,
		Example: `  certwright challenge import devices.csv --out challenges.csv
  certwright challenge import devices.csv --point phones --validity 30d --batch HALL-3 --out challenges.csv
  certwright challenge import - --dry-run < devices.csv`,
		Args: takes("FILE"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&out, "out", "", "write them to this new `file`, mode 0600, as CSV (required)")
	f.StringVar(&r.Point, "point", "", "the enrollment point with this `name` (default «default»)")
	f.StringVar(&batch, "batch", "", "call the batch by this `name` (default: a random one)")
	f.StringVar(&r.Profile, "profile", "", "the `name` of a profile, where a line has none")
	f.StringVar(&r.Validity, "validity", "", "how long they can be used, a `time`, where a line has none (default 24h)")
	f.StringVar(&r.Note, "note", "", "a `text` for people, where a line has none")
	f.BoolVar(&dryRun, "dry-run", false, "check every line, and make nothing")
	run := conn.call(func(cmd *cobra.Command, api *client.Client, args []string) error {
		text, err := readLarge(env, args[0])
		if err != nil {
			return err
		}
		job := &challengeJob{env: env, api: api, point: r.Point, batch: batch, out: out, dryRun: dryRun, file: args[0]}
		r.Point = ""
		if job.wishes, job.lines, err = parseDevices(text, r); err != nil {
			return fmt.Errorf("%s: %w", inputName(args[0]), err)
		}
		return job.run(cmd.Context())
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" && !dryRun {
			return misuse(cmd, "", "--out is missing: the texts are shown once, and have to go somewhere")
		}
		if r.Validity != "" {
			if err := new(span).Set(r.Validity); err != nil {
				return misuse(cmd, "", "--validity: %s", err)
			}
		}
		return run(cmd, args)
	}
	return cmd
}

func inputName(file string) string {
	if file == "-" {
		return "the standard input"
	}
	return file
}

// maxImportBytes bounds a file of devices.
const maxImportBytes = 512 << 20

// readLarge reads a file of devices.
func readLarge(env *environment, file string) ([]byte, error) {
	in := env.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxImportBytes+1))
	if err == nil && len(text) > maxImportBytes {
		err = fmt.Errorf("%s has more than %d octets", inputName(file), maxImportBytes)
	}
	return text, err
}

// parseDevices reads a file of devices. What a line leaves empty is taken from the default. It returns the number of each
// one's line, too.
func parseDevices(text []byte, otherwise client.CreateChallengeRequest) (wishes []client.CreateChallengeRequest, lines []int, err error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	rows := csv.NewReader(bytes.NewReader(text))
	rows.Comma, rows.ReuseRecord = document.Separator(text), true
	const hint = "the first line names the columns, as in: device,subject,sans"
	head, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil, failure(hint, "the file is empty")
	}
	if err != nil {
		return nil, nil, err
	}
	columns := make([]string, len(head)) // empty: left alone
	for i, name := range head {
		columns[i] = strings.ToLower(strings.TrimSpace(name))
		switch {
		case columns[i] == "id":
			columns[i] = "device"
		case strings.HasPrefix(columns[i], "label:"), slices.Contains(device.Columns(), columns[i]) && !slices.Contains(importColumns, columns[i]):
			columns[i] = ""
		}
		switch {
		case columns[i] == "":
		case !slices.Contains(importColumns, columns[i]):
			return nil, nil, failure(hint, "there is no column %q; there are %s", name, strings.Join(importColumns, ", "))
		case slices.Contains(columns[:i], columns[i]):
			return nil, nil, failure(hint, "the column %s stands twice", columns[i])
		}
	}
	if slices.Equal(columns, make([]string, len(columns))) {
		return nil, nil, failure(hint, "there is no column device")
	}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		w := otherwise
		for i, cell := range row {
			cell = strings.TrimSpace(cell)
			if cell = document.Value(cell); cell == "" {
				continue
			}
			switch columns[i] {
			case "device":
				w.Device = cell
			case "subject":
				w.Subject = cell
			case "sans":
				w.SANs = strings.Fields(cell)
			case "profile":
				w.Profile = cell
			case "validity":
				w.Validity = cell
			case "note":
				w.Note = cell
			}
		}
		line, _ := rows.FieldPos(0)
		wishes, lines = append(wishes, w), append(lines, line)
		if len(wishes) > maxImport {
			return nil, nil, fmt.Errorf("more than %d devices", maxImport)
		}
	}
	if len(wishes) == 0 {
		return nil, nil, failure(hint, "there is no line with a device")
	}
	return wishes, lines, nil
}

// challengeJob makes many challenges and writes them to a file.
type challengeJob struct {
	env    *environment
	api    *client.Client
	point  string
	batch  string
	out    string
	dryRun bool
	file   string // that the wishes come from; empty: none
	lines  []int  // in it
	wishes []client.CreateChallengeRequest
}

func (j *challengeJob) run(ctx context.Context) error {
	if j.batch == "" {
		j.batch = rand.Text()[:16]
	}
	if j.out != "" {
		if err := newOut(j.out); err != nil {
			return err
		}
	}
	m := newMeter(j.env)
	defer m.end()
	checked := j.wishes
	if j.file == "" { // those of --count are all alike
		checked = checked[:1]
	}
	if err := j.each(ctx, m, "checked", checked, true, func([]client.MadeChallenge) error { return nil }); err != nil {
		return err
	}
	m.end()
	if j.dryRun {
		fmt.Fprintf(j.env.out, "dry run: %d challenges would be made, none was\n", len(j.wishes))
		return nil
	}
	f, err := os.OpenFile(j.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return exists(j.out)
	}
	if err != nil {
		return err
	}
	written := 0
	w := csv.NewWriter(f)
	err = w.Write([]string{"device", "challenge", "id", "expires_at", "subject"})
	if err == nil {
		err = j.each(ctx, m, "made", j.wishes, false, func(made []client.MadeChallenge) error {
			for _, c := range made {
				row := []string{c.Device, c.Challenge, c.ID, c.ExpiresAt.UTC().Format(time.RFC3339), c.Subject}
				for i := range row {
					row[i] = document.Cell(row[i])
				}
				if err := w.Write(row); err != nil {
					return err
				}
			}
			if w.Flush(); w.Error() != nil {
				return w.Error()
			}
			if err := f.Sync(); err != nil {
				return err
			}
			written += len(made)
			return nil
		})
	}
	m.end()
	if err = errors.Join(err, f.Close()); err != nil {
		// The last request may have been carried out, and its answer lost: nobody has those texts.
		report(j.env.err, err)
		return failure("what was made, and perhaps more that nobody has the texts of, is revoked by «certwright challenge revoke --batch "+j.batch+"»",
			"broken off: %d of %d challenges were made and are in %s", written, len(j.wishes), j.out)
	}
	var all fields
	all.add("File", j.out)
	all.add("Challenges", strconv.Itoa(written))
	all.add("Batch", j.batch)
	return all.write(j.env.out)
}

var rowField = regexp.MustCompile(`^challenges\[([0-9]+)\]\.?(.*)$`)

// each sends wishes to the server, some at a time.
func (j *challengeJob) each(ctx context.Context, m *meter, what string, wishes []client.CreateChallengeRequest, dryRun bool, then func([]client.MadeChallenge) error) error {
	total := int64(len(wishes))
	m.show(what, 0, total)
	for begin := 0; begin < len(wishes); begin += importAtOnce {
		some := wishes[begin:min(begin+importAtOnce, len(wishes))]
		_, made, err := j.api.CreateChallenges(ctx, client.BulkChallengesRequest{Point: j.point, Batch: j.batch, DryRun: dryRun, Challenges: some})
		if err != nil {
			return j.refused(err, begin, dryRun)
		}
		if !dryRun && len(made) != len(some) {
			return fmt.Errorf("the server made %d challenges instead of %d", len(made), len(some))
		}
		if err := then(made); err != nil {
			return err
		}
		m.show(what, int64(begin+len(some)), total)
	}
	return nil
}

// refused tells the lines that a refusal is about. checking says that it comes before anything is made.
func (j *challengeJob) refused(err error, begin int, checking bool) error {
	e, ok := errors.AsType[*client.Error](err)
	if !ok || j.file == "" {
		return err
	}
	if len(e.Errors) == 0 {
		if place := j.place(e.Field, begin); place != "" {
			return &hintError{err: fmt.Errorf("%s: %s", place, e.Error()), hint: e.Hint}
		}
		return err
	}
	var lines []error
	for _, row := range e.Errors {
		place := j.place(row.Location, begin)
		if place == "" {
			return err
		}
		lines = append(lines, fmt.Errorf("%s: %s", place, row.Message))
	}
	for _, line := range lines {
		report(j.env.err, line)
	}
	if checking {
		return errors.New(e.Detail + "; nothing was made")
	}
	return errors.New(e.Detail)
}

// place returns where in the file a field of a request is; empty for what is of no line.
func (j *challengeJob) place(field string, begin int) string {
	match := rowField.FindStringSubmatch(field)
	if match == nil {
		return ""
	}
	row, err := strconv.Atoi(match[1])
	if err != nil || begin+row >= len(j.lines) {
		return ""
	}
	place := fmt.Sprintf("%s:%d", inputName(j.file), j.lines[begin+row])
	if match[2] != "" {
		place += ": " + match[2]
	}
	return place
}
