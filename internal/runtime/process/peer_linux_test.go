package process

import (
	"net"
	"os"
	"testing"
)

// TestPeer: the far end of a connection is found by its owner, over both families,
// until it is closed. It runs alone: a child that another test starts in that moment
// has a copy of the closed end until its exec.
func TestPeer(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Log(err) // a machine without IPv6
			continue
		}
		defer l.Close()
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		near, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		local, remote := near.LocalAddr().(*net.TCPAddr), near.RemoteAddr().(*net.TCPAddr)
		uid, open, err := peer(local, remote)
		if err != nil || !open || uid != os.Geteuid() {
			t.Errorf("%s: peer = %d, %v, %v; want %d", address, uid, open, err, os.Geteuid())
		}
		if outside := FromContainer(); outside != nil && outside(local, remote) {
			t.Errorf("%s: we are taken for a container", address)
		}
		if err := far.Close(); err != nil {
			t.Fatal(err)
		}
		if _, open, err := peer(local, remote); err != nil || open {
			t.Errorf("%s: after its end: %v, %v", address, open, err)
		}
	}
}
