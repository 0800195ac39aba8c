package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestErrors gives install.sh what it must refuse, and wants one clear line for each.
func TestErrors(t *testing.T) {
	release := smallRelease(t)
	cases := []struct {
		name   string
		bare   bool // no OpenRC either
		before string
		env    []string
		args   string
		want   string
	}{
		{name: "not root", before: "exec setpriv --reuid 65534 --clear-groups sh /release/install.sh", want: "this must run as root"},
		{name: "wrong machine", before: `mkdir /tmp/b; printf '#!/bin/sh\n[ "$1" = -s ] && echo Linux || echo mips\n' >/tmp/b/uname; chmod +x /tmp/b/uname; PATH=/tmp/b:$PATH`, want: "not made for mips"},
		{name: "no init system", bare: true, want: "neither systemd nor OpenRC"},
		{name: "no token", env: []string{"K3S_URL=https://a:6443"}, want: "an agent needs a token"},
		{name: "no server", args: "agent", want: "an agent needs its server"},
		{name: "plain http", env: []string{"K3S_URL=http://a:6443", "K3S_TOKEN=x"}, want: "must begin with https://"},
		{name: "token file", env: []string{"K3S_URL=https://a:6443", "K3S_TOKEN_FILE=/nowhere"}, want: "cannot read /nowhere"},
		{name: "quotes", env: []string{`INSTALL_K3S_EXEC=server --x "y`}, want: "a quote without its pair"},
		{name: "command", args: "etcd", want: "no service command etcd"},
		{name: "data directory", args: "--data-dir data", want: "must be an absolute path"},
		{name: "name", env: []string{"INSTALL_KEDGE_NAME=a/b"}, want: "INSTALL_KEDGE_NAME may have"},
		{name: "no release", env: []string{"INSTALL_KEDGE_BASE_URL=/tmp"}, want: "found no release"},
		{name: "version", env: []string{"INSTALL_K3S_VERSION=v9.9.9"}, want: "asked for v9.9.9, but the release there is v1.2.3"},
		{name: "channel", env: []string{"INSTALL_KEDGE_CHANNEL=next"}, want: "needs INSTALL_KEDGE_CHANNEL_URL"},
		{name: "base", env: []string{"INSTALL_KEDGE_BASE_URL=ftp://x"}, want: "must begin with https://"},
		{name: "damaged", before: "cp -r /release /tmp/bad; for f in /tmp/bad/kedge-*; do echo x >>$f; done", env: []string{"INSTALL_KEDGE_BASE_URL=/tmp/bad"}, want: "does not have the checksum"},
		{name: "unknown file", before: "cp /release/kedge-amd64 /tmp/", env: []string{"INSTALL_KEDGE_FILE=/tmp/kedge-amd64"}, want: "nothing says which checksum"},
		{name: "no space", before: "mkdir -p /opt/small; mount -t tmpfs -o size=8M tmpfs /opt/small", env: []string{"INSTALL_KEDGE_BIN_DIR=/opt/small"}, want: "MiB free, the installation needs 320 MiB"},
		{name: "nothing to skip to", env: []string{"INSTALL_K3S_SKIP_DOWNLOAD=true"}, want: "/usr/local/bin/kedge is not there"},
		{name: "an agent is here", before: ": >/etc/init.d/kedge-agent", want: "this machine runs kedge-agent, not kedge"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := machine{openrc: !c.bare, release: release, env: append([]string{"INSTALL_KEDGE_BASE_URL=/release"}, c.env...)}
			out, err := m.run(t, c.before+"\nset -e\nsh /release/install.sh "+c.args)
			if err == nil {
				t.Fatalf("it went through:\n%s", out)
			}
			if n := strings.Count(out, "[ERROR]"); n != 1 || !strings.Contains(out, c.want) {
				t.Errorf("want one error with %q:\n%s", c.want, out)
			}
		})
	}
}

// smallRelease is a release folder whose program is a shell script that knows its version.
func smallRelease(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := "#!/bin/sh\necho 'kedge       v1.2.3'\n"
	if err := os.WriteFile(filepath.Join(dir, "kedge-amd64"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	pack(t, dir, "ZSTD_LEVEL=1", "XZ_LEVEL=1", "GZIP_LEVEL=1")
	return dir
}
