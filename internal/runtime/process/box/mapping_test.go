package box

import "testing"

func TestMapping(t *testing.T) {
	t.Parallel()
	m := Mapping{User: true, Base: 1000, Count: 65536}
	for id, want := range map[int]int{0: 1000, 7: 1007, 65535: 66535, 65536: 1000 + overflowID, -1: 1000 + overflowID} {
		if got := m.Host(id); got != want {
			t.Errorf("Host(%d) = %d, want %d", id, got, want)
		}
	}
	if one := (Mapping{User: true, Base: 5, Count: 1}); one.Host(1234) != 5 || one.Has(1) || !one.Has(0) {
		t.Errorf("one id: %+v", one)
	}
}
