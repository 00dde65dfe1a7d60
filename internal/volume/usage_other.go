//go:build !linux && !darwin && !freebsd

package volume

// usage of a system that is not asked: no reserve, and always room.
func usage(string) (total, free int64, err error) { return 0, 1 << 62, nil }
