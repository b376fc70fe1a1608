package main

import (
	"runtime/debug"
	"testing"

	"github.com/certwright/certwright/pkg/config"
)

func TestCallOf(t *testing.T) {
	const hash = "1aca2ead55f2edb8a1dc4e8da5a9536c441734775bc7f5754bcca59268c1a1a9"
	for _, tt := range []struct{ path, called, want string }{
		{"/tmp/go-build2472978199/b001/exe/certwright", "/tmp/go-build2472978199/b001/exe/certwright", "go run ./cmd/certwright"},
		{"/home/ada/.cache/go-build/1a/" + hash + "-d/certwright", "/home/ada/.cache/go-build/1a/" + hash + "-d/certwright", "go run ./cmd/certwright"},
		{"/var/cache/go/1a/" + hash + "-d/certwright", "/var/cache/go/1a/" + hash + "-d/certwright", "go run ./cmd/certwright"},
		{"/usr/local/bin/certwright", "certwright", "certwright"},
		{"/home/ada/certwright", "./certwright", "./certwright"},
		{"/home/ada/my tools/certwright", "/home/ada/my tools/certwright", "'/home/ada/my tools/certwright'"},
		{"/home/ada/go-builder/certwright", "../go-builder/certwright", "../go-builder/certwright"},
		{"", "certwright", "certwright"},
	} {
		if got := callOf(tt.path, tt.called); got != tt.want {
			t.Errorf("callOf(%q, %q) = %q, want %q", tt.path, tt.called, got, tt.want)
		}
	}
}

// TestFirstSteps: another terminal has the home folder, and none of the server's variables.
func TestFirstSteps(t *testing.T) {
	tests := []struct {
		name, data string
		environ    []string
		want       string
	}{
		{"by default", "/home/ada/.local/share/certwright", []string{"HOME=/home/ada"}, "./certwright cert list"},
		{"where XDG says", "/xdg/certwright", []string{"HOME=/home/ada", "XDG_DATA_HOME=/xdg"}, "./certwright cert list"},
		{"by a flag", "/srv/ca", []string{"HOME=/home/ada"}, "./certwright cert list --data /srv/ca"},
		{"by the environment", "/srv/ca", []string{"HOME=/home/ada", "CERTWRIGHT_DATA=/srv/ca"}, "./certwright cert list --data /srv/ca"},
		{"no home", "/srv/my ca", nil, "./certwright cert list --data '/srv/my ca'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := testEnvironment()
			env.program, env.environ = "./certwright", tt.environ
			steps := firstSteps(env, tt.data)
			if steps[1] != tt.want {
				t.Errorf("got %q, want %q", steps[1], tt.want)
			}
			for _, step := range steps {
				args, err := shellWords(step)
				if err == nil {
					_, err = commandOf(args[1:])
				}
				if err != nil {
					t.Errorf("%s: %v", step, err)
				}
			}
		})
	}
}

func TestAfterRewrap(t *testing.T) {
	for want, to := range map[string]config.Key{
		"Start the server with --key-file /etc/kek.key from now on (or set key.file); keep the old key only as long as\nbackups need it.":                {File: "/etc/kek.key"},
		"Start the server with --passphrase-file /etc/pass from now on (or set key.passphrase_file); keep the old key only as long as\nbackups need it.": {PassphraseFile: "/etc/pass"},
		"Start the server with --credential kek from now on (or set key.credential); keep the old key only as long as\nbackups need it.":                 {Credential: "kek"},
	} {
		if got := afterRewrap(to); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestVersionOf(t *testing.T) {
	vcs := func(revision, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
	}
	const commit = "d9056109c1f0a2b3c4d5e6f708192a3b4c5d6e7f"
	tests := []struct {
		name, version string
		settings      []debug.BuildSetting
		want          string
	}{
		{"release", "v1.4.0", vcs(commit, "false"), "v1.4.0"},
		{"clone", "(devel)", vcs(commit, "false"), "d9056109c1f0"},
		{"changed clone", "(devel)", vcs(commit, "true"), "d9056109c1f0+changes"},
		{"changed clone, no version", "", vcs(commit, "true"), "d9056109c1f0+changes"},
		{"nothing known", "(devel)", nil, "unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := versionOf(&debug.BuildInfo{Main: debug.Module{Version: tt.version}, Settings: tt.settings}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
