package modelformat

import "strings"

// expand replaces $(NAME) by the variable's value, as Kubernetes does in the
// command, args and env of a container: $$ is a dollar, and a reference to an
// unknown variable stays as it is, so that $(PORT) and $(AIP_HTTP_PORT) are left
// for the runtime, which hands the port out.
func expand(s string, env map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch s[1] {
		case '$':
			b.WriteByte('$')
			s = s[2:]
			continue
		case '(':
			if end := strings.IndexByte(s, ')'); end > 0 {
				value, known := env[s[2:end]]
				if !known {
					value = s[:end+1]
				}
				b.WriteString(value)
				s = s[end+1:]
				continue
			}
		}
		b.WriteByte('$')
		s = s[1:]
	}
}
