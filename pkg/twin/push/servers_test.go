package push

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/go-sql-driver/mysql"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

const patience = time.Minute

// start runs a server of Debian's until the test ends; the test is skipped where it is not installed.
func start(t *testing.T, address string, argv ...string) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skip(argv[0] + " is not installed: scripts/install-test-deps.sh installs what is small")
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = log.Close()
	})
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s does not listen: %s", argv[0], text)
		}
	}
}

func freeAddress(t *testing.T) (address, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	address = l.Addr().String()
	_, port, _ = net.SplitHostPort(address)
	return address, port
}

func sample(n int) Sample {
	return Sample{Namespace: "n", Device: "d1", Property: "heat", Type: "FLOAT", Value: fmt.Sprintf("%d.5", n), Time: time.UnixMilli(1700000000000 + int64(n))}
}

// pushAll pushes a few values, and waits until they are gone.
func pushAll(t *testing.T, method *v1beta1.PushMethod, secrets Secrets) {
	t.Helper()
	p, err := New(method, secrets, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		p.Push(sample(n))
	}
	p.Close()
}

func TestRedis(t *testing.T) {
	address, port := freeAddress(t)
	start(t, address, "redis-server", "--port", port, "--bind", "127.0.0.1", "--requirepass", "secret", "--save", "", "--dir", t.TempDir())
	method := func(db int) *v1beta1.PushMethod {
		return &v1beta1.PushMethod{DBMethod: &v1beta1.PushDatabase{Redis: &v1beta1.PushRedis{Client: &v1beta1.RedisClient{Addr: address, DB: db, PoolSize: 10}}}}
	}
	pushAll(t, method(2), Secrets{Password: "secret"})
	out, err := exec.Command("redis-cli", "-p", port, "-a", "secret", "--no-auth-warning", "-n", "2", "ZRANGE", "d1", "0", "-1", "WITHSCORES").CombinedOutput()
	want := ""
	for n := range 3 {
		want += fmt.Sprintf("TimeStamp: 170000000000%d PropertyName: heat data: %d.5\n170000000000%d\n", n, n, n)
	}
	if err != nil || string(out) != want {
		t.Errorf("got\n%s%v, want\n%s", out, err, want)
	}
	for reason, wrong := range map[string]sender{
		"WRONGPASS": &sortedSet{address: address, password: "wrong"}, "NOAUTH": &sortedSet{address: address}, "DB index is out of range": &sortedSet{address: address, password: "secret", database: 99},
	} {
		if err := wrong.send(context.Background(), sample(0)); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%v, want %s", err, reason)
		}
		wrong.close()
	}
}

func TestMQTT(t *testing.T) {
	address, port := freeAddress(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte("listener "+port+" 127.0.0.1\nallow_anonymous true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, address, "mosquitto", "-c", conf)
	pushAll(t, &v1beta1.PushMethod{MQTT: &v1beta1.PushMQTT{Address: "tcp://" + address, Topic: "plant/heat", QoS: 1, Retained: true}}, Secrets{})
	heard := make(chan string, 1)
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("ear"))
	if token := c.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer c.Disconnect(100)
	c.Subscribe("plant/#", 1, func(_ paho.Client, m paho.Message) { heard <- string(m.Payload()) })
	select {
	case got := <-heard:
		if !strings.Contains(got, `"value":"2.5"`) {
			t.Errorf("the value that is kept is %s", got)
		}
	case <-time.After(patience):
		t.Error("nothing was heard")
	}
}

// TestMySQL needs Debian's mariadb-server, which is large: it is installed by those who want this test.
func TestMySQL(t *testing.T) {
	if _, err := exec.LookPath("mariadbd"); err != nil {
		t.Skip("mariadb-server is not installed")
	}
	address, port := freeAddress(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if out, err := exec.Command("mariadb-install-db", "--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir="+data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	start(t, address, "mariadbd", "--no-defaults", "--user=root", "--datadir="+data, "--port="+port, "--bind-address=127.0.0.1", "--socket="+filepath.Join(dir, "s"), "--pid-file="+filepath.Join(dir, "pid"))
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User = "tcp", address, "root"
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	admin := sql.OpenDB(connector)
	defer func() { _ = admin.Close() }()
	for _, q := range []string{"CREATE DATABASE plant", "CREATE USER app IDENTIFIED BY 'secret'", "GRANT ALL ON plant.* TO app"} {
		if _, err := admin.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	method := &v1beta1.PushMethod{DBMethod: &v1beta1.PushDatabase{MySQL: &v1beta1.PushMySQL{Client: &v1beta1.MySQLClient{Addr: address, Database: "plant", UserName: "app"}}}}
	pushAll(t, method, Secrets{Password: "secret"})
	pushAll(t, method, Secrets{Password: "wrong"})
	got := ""
	rows, err := admin.Query("SELECT ts, field FROM plant.`n/d1/heat` ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var ts, field string
		if err := rows.Scan(&ts, &field); err != nil {
			t.Fatal(err)
		}
		got += ts + " " + field + "; "
	}
	if want := "2023-11-14 22:13:20 0.5; 2023-11-14 22:13:20 1.5; 2023-11-14 22:13:20 2.5; "; rows.Err() != nil || got != want {
		t.Errorf("%s %v", got, rows.Err())
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"+OK\r\n", ":1\r\n", "-ERR no\r\n", "$-1\r\n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if err := readReply(line); err == nil && !strings.HasPrefix(line, "+") && !strings.HasPrefix(line, ":") {
			t.Fatalf("%q", line)
		}
	})
}
