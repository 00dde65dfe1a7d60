package gcs

// Routes lists what a Handler serves.
func Routes(h *Handler) []string {
	routes := make([]string, 0, len(h.methods))
	for name := range h.methods {
		routes = append(routes, name)
	}
	return routes
}

// XMLRoutes lists what is served in the XML style: verb, place and subresource.
func XMLRoutes(h *Handler) []string {
	routes := make([]string, 0, len(h.xmlRoutes))
	for name := range h.xmlRoutes {
		routes = append(routes, name)
	}
	return routes
}
