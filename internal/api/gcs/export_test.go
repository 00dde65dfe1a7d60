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

// CheckPolicy holds a form with a key and nothing else against a policy document.
func CheckPolicy(text, bucket, key string) (least, most int64, err error) {
	doc, err := parsePolicy(text)
	if err != nil {
		return 0, 0, err
	}
	sizes, err := doc.check(bucket, &form{fields: map[string]string{"key": key}}, key)
	return sizes.least, sizes.most, err
}
