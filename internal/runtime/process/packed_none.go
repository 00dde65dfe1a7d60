//go:build !embedwrapper || !linux

package process

// Packed gives the small wrapper, for Config.Wrapper. This build has none.
func Packed() []byte { return nil }
