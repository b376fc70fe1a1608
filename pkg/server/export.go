package server

import (
	"os"
	"path/filepath"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/export"
	"github.com/certwright/certwright/pkg/publish"
)

// ExportTarget opens what the settings name.
func ExportTarget(c config.Export) (export.Target, error) {
	s3, ok, err := export.ParseS3(c.To)
	switch {
	case err != nil:
		return nil, err
	case ok:
		s3.Endpoint, s3.Region, s3.CredentialsFile, s3.Lookup = c.Endpoint, c.Region, c.CredentialsFile, os.LookupEnv
		return export.NewS3(s3)
	}
	path, err := filepath.Abs(c.To)
	if err != nil {
		return nil, err
	}
	return export.NewFolder(path)
}

// buildExport makes the exporter that the settings ask for, if any. Every replica that has the setting exports: into the
// folder of its own web server, or into one bucket, where they do not get into each other's way.
func (s *Server) buildExport(pub *publish.Handler) error {
	if s.cfg.Export.To == "" {
		return nil
	}
	target, err := ExportTarget(s.cfg.Export)
	if err != nil {
		return err
	}
	s.export, err = export.New(export.Config{Source: export.HandlerSource(pub), Target: target, Logger: s.log})
	return err
}

// exportFacts are of the server's own export.
func (s *Server) exportFacts(truth func(bool) float64, instant instantFunc) []fact {
	state := func(name, help string, labels []string, read func(put func(float64, ...string), st export.State)) fact {
		return fact{name, help, labels, func(put func(float64, ...string)) {
			if s.export != nil {
				read(put, s.export.State())
			}
		}}
	}
	return []fact{
		state("certwright_export_failing", "1 while exporting fails.", nil, func(put func(float64, ...string), st export.State) {
			put(truth(st.Err != nil))
		}),
		state("certwright_export_success_timestamp_seconds", "When everything that is published was last known to be exported.", nil, func(put func(float64, ...string), st export.State) {
			instant(put, st.Success)
		}),
		state("certwright_export_files_total", "Files that were exported, by what became of them.", []string{"result"}, func(put func(float64, ...string), st export.State) {
			for _, o := range []export.Outcome{export.Written, export.Unchanged, export.Kept} {
				put(float64(st.Files[o]), o.String())
			}
			put(float64(st.Failed), "failed")
		}),
	}
}
