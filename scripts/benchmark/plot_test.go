package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestPlots: the plots in the documentation are those of the reports beside them.
func TestPlots(t *testing.T) {
	const folder = "../../docs/figures"
	for _, p := range plotters {
		report, err := os.ReadFile(filepath.Join(folder, p.name+".json"))
		if err != nil {
			t.Error(err)
			continue
		}
		c, err := p.plot(report)
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		for _, panel := range c.panels {
			if len(panel.bars) == 0 || panel.bars[0].sum() <= 0 {
				t.Errorf("%s: nothing in «%s»", p.name, panel.title)
			}
		}
		made := c.svg()
		drawn, err := os.ReadFile(filepath.Join(folder, p.name+".svg"))
		if err != nil || !bytes.Equal(made, drawn) {
			t.Errorf("%s.svg is not the plot of %[1]s.json: scripts/bench plot (%v)", p.name, err)
		}
		for d := xml.NewDecoder(bytes.NewReader(made)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.5: "0.5", 0.12345: "0.123", 12.345: "12.3", 999.4: "999", 58499.6: "58,500", 1234567: "1,234,567"} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %s, want %s", v, got, want)
		}
	}
}
