// Command guest is the program in the suite's images, under the names by which it is called there:
//
//	nginx, httpd ADDRESS  a web server that answers everything with 200
//	nnp                   says which user it runs as
//	ipcs                  lists shared memory segments
//	pgrep NAME            lists the processes of that name; without one it ends with 1
//	sh                    busybox's shell; a command of one word is looked for in the PATH only
//
// Debian's static busybox has no ipcs and no pgrep, and its shell runs its own commands without opening their files, which hides a file
// that was masked.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(126)
	}
}

func run(args []string) error {
	switch name := filepath.Base(args[0]); name {
	case "nginx", "httpd":
		if len(args) < 2 {
			return fmt.Errorf("usage: %s ADDRESS", name)
		}
		return serve(name, args[1])
	case "nnp":
		_, err := fmt.Println("Effective uid:", os.Geteuid())
		return err
	case "ipcs":
		segments, err := os.ReadFile("/proc/sysvipc/shm")
		fmt.Print(string(segments))
		return err
	case "pgrep":
		if len(args) != 2 {
			return errors.New("usage: pgrep NAME")
		}
		return pgrep(args[1])
	}
	return shell(args)
}

// pgrep prints the numbers of processes.
func pgrep(name string) error {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	found := false
	for _, file := range files {
		comm, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(comm)) == name { // a process may have ended
			found = true
			fmt.Println(filepath.Base(filepath.Dir(file)))
		}
	}
	if !found {
		os.Exit(1)
	}
	return nil
}

// serve writes its process number where web servers do, and answers for ever.
func serve(name, address string) error {
	if err := os.WriteFile("/var/run/"+name+".pid", fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return err
	}
	fmt.Println(name, "serves", address)
	server := &http.Server{Addr: address, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "It works!")
	})}
	return server.ListenAndServe()
}

func shell(args []string) error {
	if len(args) == 3 && args[1] == "-c" && isWord(args[2]) {
		if err := execute(args[2]); errors.Is(err, syscall.EACCES) {
			return fmt.Errorf("%s: %s: Permission denied", args[0], args[2])
		}
	}
	return syscall.Exec("/bin/busybox", append([]string{"sh"}, args[1:]...), os.Environ())
}

func isWord(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") == ""
}

// execute runs the first file of that name in the PATH; it returns when there is none or it cannot be run.
func execute(word string) error {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		file := filepath.Join(dir, word)
		if _, err := os.Stat(file); err == nil {
			return syscall.Exec(file, []string{word}, os.Environ())
		}
	}
	return syscall.ENOENT
}
