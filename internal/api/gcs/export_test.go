package gcs

// Routes lists what a Handler serves.
func Routes(h *Handler) []string {
	routes := make([]string, 0, len(h.methods))
	for name := range h.methods {
		routes = append(routes, name)
	}
	return routes
}
