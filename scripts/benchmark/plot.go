package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// plotting is the command line that makes plots: «plot FOLDER» turns FOLDER/ocsp.json, as --json has written it, into
// FOLDER/ocsp.svg, and so for each report that is there.
const plotting = "plot"

// chart is a page of horizontal bars.
type chart struct {
	title   string
	machine string
	panels  []panel
}

// panel is bars that share a unit, and so a scale.
type panel struct {
	title string
	unit  string
	parts []string // what the parts of each bar are; empty: each bar is one thing
	bars  []bar
	goal  float64 // a line; 0: none
}

// bar is one line of a panel.
type bar struct {
	label string
	parts []float64
	ours  bool // the others are for comparison
}

func (b bar) sum() (sum float64) {
	for _, v := range b.parts {
		sum += v
	}
	return sum
}

// plotters make a chart of a report.
var plotters = []struct {
	name string
	plot func(report []byte) (*chart, error)
}{
	{"issue", charted(issueChart)},
	{"scep", charted(scepChart)},
	{"crl", charted(crlChart)},
	{"ocsp", charted(ocspChart)},
	{"attack", charted(attackChart)},
}

func charted[R any](plot func(*R) *chart) func([]byte) (*chart, error) {
	return func(b []byte) (*chart, error) {
		var report R
		if err := json.Unmarshal(b, &report); err != nil {
			return nil, err
		}
		return plot(&report), nil
	}
}

// plotFolder makes the plots of a folder.
func plotFolder(folder string) error {
	made := 0
	for _, p := range plotters {
		in := filepath.Join(folder, p.name+".json")
		report, err := os.ReadFile(in)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		c, err := p.plot(report)
		if err != nil {
			return fmt.Errorf("%s: %w", in, err)
		}
		out := filepath.Join(folder, p.name+".svg")
		if err := os.WriteFile(out, c.svg(), 0o644); err != nil {
			return err
		}
		fmt.Println(out)
		made++
	}
	if made == 0 {
		return fmt.Errorf("there is no report in %s: scripts/bench ocsp --json %s", folder, filepath.Join(folder, "ocsp.json"))
	}
	return nil
}

func (m machine) words() string {
	kernel, _, _ := strings.Cut(m.Kernel, "-") // what follows is the builder's
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", m.CPUs, m.Model, kernel, strings.Replace(m.Go, "go", "Go ", 1))
}

func percentiles(latency map[string]float64) []float64 {
	return []float64{latency["p50"], latency["p99"] - latency["p50"]}
}

var percentileParts = []string{"p50", "up to p99"}

// runPanels are what issue and scep have in common.
func runPanels(runs []issueRun, what string, goal float64) []panel {
	cpu := panel{title: "Processor time of each " + what, unit: "ms", parts: []string{"server", "database"}, goal: goal}
	floors := panel{title: "The same, in multiples of what its cryptography alone costs", unit: "x"}
	latency := panel{title: "Latency", unit: "ms", parts: percentileParts}
	rate := panel{title: "A second", unit: what + "s/s"}
	for _, r := range runs {
		label, ours := r.Server+", "+r.Store, r.Server == ours
		cpu.bars = append(cpu.bars, bar{label, []float64{r.CPU.Server, r.CPU.Database}, ours})
		floors.bars = append(floors.bars, bar{label, []float64{r.CPU.PerFloor}, ours})
		latency.bars = append(latency.bars, bar{label, percentiles(r.Latency), ours})
		rate.bars = append(rate.bars, bar{label, []float64{r.PerSecond}, ours})
	}
	return []panel{rate, cpu, floors, latency}
}

func issueChart(r *issueReport) *chart {
	return &chart{
		title:   fmt.Sprintf("Issuing over REST: %s CSRs, %d TLS connections", r.Key, r.Connections),
		machine: r.Machine.words(), panels: runPanels(r.Runs, "certificate", 0),
	}
}

func scepChart(r *scepReport) *chart {
	return &chart{
		title:   fmt.Sprintf("Devices with RSA-2048 that enroll by SCEP: %s challenge, %d connections", r.Challenge, r.Connections),
		machine: r.Machine.words(), panels: runPanels(r.Runs, "enrollment", scepGoal),
	}
}

func crlChart(r *crlReport) *chart {
	times := panel{title: "One list, processor time; ours with the revocation before it, and the database", unit: "s"}
	memory := panel{title: "Memory at most; ours of the whole server", unit: "MB"}
	single := panel{title: "One revocation with its list, processor time", unit: "ms", parts: []string{"server", "database"}}
	many := panel{title: "Each of many revocations, their lists included, processor time", unit: "ms", parts: []string{"server", "database"}}
	visible := panel{title: "From the answer to a revocation until its list is served, median", unit: "ms"}
	for _, run := range r.Runs {
		label := grouped(run.Revoked) + " revoked, " + run.Store
		single.bars = append(single.bars, bar{label, []float64{run.SingleCPU, run.SingleDatabaseCPU}, true})
		many.bars = append(many.bars, bar{label, []float64{run.RateCPU, run.RateDatabaseCPU}, true})
		visible.bars = append(visible.bars, bar{label, []float64{run.Visible}, true})
		label = ours + ", " + grouped(run.Revoked) + " revoked"
		times.bars = append(times.bars, bar{label, []float64{(run.SingleCPU + run.SingleDatabaseCPU) / 1000}, true})
		memory.bars = append(memory.bars, bar{label, []float64{float64(run.Peak) / 1e6}, true})
	}
	for _, p := range r.Peers {
		label := p.Who + ", " + grouped(p.Entries)
		times.bars = append(times.bars, bar{label, []float64{p.CPU}, false})
		memory.bars = append(memory.bars, bar{label, []float64{float64(p.Peak) / 1e6}, false})
	}
	return &chart{title: "Certificate revocation lists", machine: r.Machine.words(), panels: []panel{times, memory, visible, single, many}}
}

func ocspChart(r *ocspReport) *chart {
	rate := panel{title: "Answers a second", unit: "/s"}
	cpu := panel{title: "Processor time of each answer", unit: "µs"}
	latency := panel{title: "Latency", unit: "ms", parts: percentileParts}
	for _, run := range r.Runs {
		label, ours := run.Server+", "+run.Load, run.Server == ours
		rate.bars = append(rate.bars, bar{label, []float64{run.PerSecond}, ours})
		cpu.bars = append(cpu.bars, bar{label, []float64{run.CPU}, ours})
		latency.bars = append(latency.bars, bar{label, percentiles(run.Latency), ours})
	}
	return &chart{
		title:   fmt.Sprintf("OCSP: %d connections, the generator on the same cores", r.Connections),
		machine: r.Machine.words(), panels: []panel{rate, cpu, latency},
	}
}

func attackChart(r *attackReport) *chart {
	ratio := panel{title: "p99 of honest clients beside an attack, in multiples of p99 without", unit: "x", goal: goalAttacked}
	latency := panel{title: "Their latency", unit: "ms", parts: percentileParts}
	for _, run := range r.Runs {
		ratio.bars = append(ratio.bars, bar{run.Attack, []float64{run.Ratio["p99"]}, true})
		latency.bars = append(latency.bars, bar{"nobody attacks", percentiles(run.Alone), false}, bar{run.Attack, percentiles(run.Latency), true})
	}
	return &chart{
		title:   fmt.Sprintf("OCSP beside attacks: honest clients ask %d times a second", r.PerSecond),
		machine: r.Machine.words(), panels: []panel{ratio, latency},
	}
}

// Sizes of a plot, in pixels.
const (
	plotWidth  = 860
	labelWidth = 300
	valueWidth = 110
	barHeight  = 16
	barStep    = 24
)

// plotStyle makes a plot readable on light and on dark ground, which it leaves as it is.
const plotStyle = `
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.panel { font-weight: 600; }
.small { font-size: 12px; fill: #59636e; }
.axis { stroke: #d1d9e0; }
.goal { stroke: #cf222e; stroke-width: 2; stroke-dasharray: 4 3; }
.ours0 { fill: #0969da; } .ours1 { fill: #80ccff; }
.other0 { fill: #818b98; } .other1 { fill: #c8d1da; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .small { fill: #9198a1; }
  .axis { stroke: #3d444d; }
  .goal { stroke: #ff7b72; }
  .ours0 { fill: #4493f8; } .ours1 { fill: #1f4f8f; }
  .other0 { fill: #9198a1; } .other1 { fill: #545d68; }
}
`

// svg draws the chart.
func (c *chart) svg() []byte {
	var b bytes.Buffer
	y := 26
	text := func(class string, x, y int, anchor, s string) {
		fmt.Fprintf(&b, `<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, escaped(s))
	}
	text("title", 10, y, "start", c.title)
	y += 20
	text("small", 10, y, "start", c.machine)
	for i := range c.panels {
		y = c.panels[i].draw(&b, text, y+34)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n", plotWidth, y+6)
	fmt.Fprintf(&out, "<title>%s</title>\n<style>%s</style>\n", escaped(c.title), plotStyle)
	out.Write(b.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// draw draws a panel whose title stands at y, and returns where it ends.
func (p *panel) draw(b *bytes.Buffer, text func(class string, x, y int, anchor, s string), y int) int {
	text("panel", 10, y, "start", p.title+", "+p.unit)
	x := plotWidth - 10
	for i := len(p.parts) - 1; i >= 0; i-- {
		text("small", x, y, "end", p.parts[i])
		x -= 7*len(p.parts[i]) + 16
		fmt.Fprintf(b, `<rect class="ours%d" x="%d" y="%d" width="10" height="10"/>`+"\n", i, x, y-10)
		x -= 14
	}
	y += 10
	most := p.goal
	for _, bar := range p.bars {
		most = max(most, bar.sum())
	}
	scale := float64(plotWidth-labelWidth-valueWidth) / max(most, 1e-9)
	top := y
	for _, bar := range p.bars {
		class := "other"
		if bar.ours {
			class = "ours"
		}
		text("", labelWidth-8, y+barHeight-3, "end", bar.label)
		x := float64(labelWidth)
		var values []string
		for i, v := range bar.parts {
			fmt.Fprintf(b, `<rect class="%s%d" x="%.1f" y="%d" width="%.1f" height="%d"/>`+"\n", class, i, x, y, max(v*scale, 0.5), barHeight)
			x += v * scale
			if v > 0 || len(bar.parts) == 1 {
				values = append(values, figure(v))
			}
		}
		said := strings.Join(values, " + ")
		if len(p.parts) > 0 && p.parts[0] == percentileParts[0] {
			said = figure(bar.parts[0]) + ", " + figure(bar.sum())
		}
		text("small", int(x)+6, y+barHeight-4, "start", said)
		y += barStep
	}
	fmt.Fprintf(b, `<line class="axis" x1="%d" x2="%[1]d" y1="%d" y2="%d"/>`+"\n", labelWidth, top-2, y-4)
	if p.goal > 0 {
		at := labelWidth + int(p.goal*scale)
		fmt.Fprintf(b, `<line class="goal" x1="%d" x2="%[1]d" y1="%d" y2="%d"/>`+"\n", at, top-4, y-4)
		text("small", at, y+8, "middle", "goal "+figure(p.goal))
		y += 12
	}
	return y
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// figure writes a number with three digits that count, or whole.
func figure(v float64) string {
	if v >= 1000 {
		return grouped(int(v + 0.5))
	}
	return strconv.FormatFloat(mustParse(strconv.FormatFloat(v, 'g', 3, 64)), 'f', -1, 64)
}

func mustParse(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64) // of our own making
	return v
}

// grouped writes a number with commas.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
