//go:build embedwrapper && linux

package process

import _ "embed"

// packed is made of cmd/wrapper by the Makefile, which also sets the build tag.
//
//go:embed wrapper.gz
var packed []byte

// Packed gives the small wrapper, for Config.Wrapper.
func Packed() []byte { return packed }
