package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// interfaces looks for a way out besides loopback.
func interfaces([]string) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range all {
		addresses, _ := i.Addrs()
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 && len(addresses) > 0 {
			fmt.Println(i.Name, addresses)
			return nil
		}
	}
	return fmt.Errorf("none of %d interfaces leads out", len(all))
}

// talk is no attack: it fails unless a server and a client in here find each other.
func talk([]string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return nil
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return nil
	}
	b, err := io.ReadAll(c)
	if err != nil {
		fmt.Println(err)
		return nil
	}
	return fmt.Errorf("heard %s", b)
}

const tokenPath = "/computeMetadata/v1/instance/service-accounts/default/token"

// ask sends what a client of the metadata server does.
func ask(url string, edit func(*http.Request)) (int, string) {
	r, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err.Error()
	}
	r.Header.Set("Metadata-Flavor", "Google")
	if edit != nil {
		edit(r)
	}
	client := &http.Client{Timeout: 2 * time.Second}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, string(b)
}

// own is no attack: it fails unless this task's own metadata server gives a token,
// with the path and, as Node asks, without it.
func own([]string) error {
	host := os.Getenv("GCE_METADATA_HOST")
	address, _, _ := strings.Cut(host, "/")
	for _, place := range []string{host, address} {
		if status, body := ask("http://"+place+tokenPath, nil); status != http.StatusOK || !strings.Contains(body, "access_token") {
			fmt.Println(place, status, body)
			return nil
		}
	}
	return errors.New("my own tokens are mine")
}

// token asks one address with one path: none, "own" for our own, or the one given.
func token(args []string) error {
	var path, host string
	if len(args) > 1 && args[1] != "" {
		if path = "/" + args[1]; args[1] == "own" {
			_, mine, _ := strings.Cut(os.Getenv("GCE_METADATA_HOST"), "/")
			path = "/" + mine
		}
	}
	if len(args) > 2 {
		host = args[2]
	}
	status, body := ask("http://"+args[0]+path+tokenPath, func(r *http.Request) { r.Host = host })
	if strings.Contains(body, "access_token") {
		return nil
	}
	return fmt.Errorf("%d %s", status, body)
}

// tokens asks whatever listens on loopback for a token of another task: all ports
// that the kernel lists, without a path, with guesses and with our own path.
func tokens([]string) error {
	mine, path, _ := strings.Cut(os.Getenv("GCE_METADATA_HOST"), "/")
	ports, err := listening()
	if err != nil {
		return err
	}
	asked := 0
	for _, port := range ports {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if address == mine {
			continue
		}
		asked++
		for _, prefix := range []string{"", "/" + path, "/t", "/t/", "/t//", "/t/%2e%2e", "/t/" + strings.Repeat("0", 32), "/" + path + "/../.."} {
			for _, edit := range []func(*http.Request){
				nil,
				func(r *http.Request) { r.Host = mine },
				func(r *http.Request) { r.Host = "metadata.google.internal" },
				func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1") },
			} {
				if status, body := ask("http://"+address+prefix+tokenPath, edit); status == http.StatusOK && strings.Contains(body, "access_token") {
					fmt.Println(address, prefix, body)
					return nil
				}
			}
		}
	}
	return fmt.Errorf("asked %d ports", asked)
}

// listening gives the TCP ports of this network that take connections.
func listening() (ports []int, err error) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			field := strings.Fields(lines.Text())
			if len(field) < 4 || field[3] != "0A" {
				continue
			}
			_, port, _ := strings.Cut(field[1], ":")
			if b, err := hex.DecodeString(port); err == nil && len(b) == 2 {
				ports = append(ports, int(b[0])<<8|int(b[1]))
			}
		}
		_ = f.Close()
	}
	return ports, nil
}
