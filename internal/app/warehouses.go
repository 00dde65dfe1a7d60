package app

import (
	"errors"
	"path/filepath"

	"tategu/internal/resource"
	"tategu/internal/warehouse"
	"tategu/internal/warehouse/postgres"
	"tategu/internal/warehouse/sqlite"
)

// Warehouse is a database: one of SQLite and Postgres is set.
type Warehouse struct {
	SQLite   string `yaml:"sqlite"`   // path of a file; a relative one is below the data directory
	Postgres string `yaml:"postgres"` // URL, or settings as libpq takes them
	// Projects are those whose jobs may write into it; none = all.
	Projects []string `yaml:"projects"`
}

func (w Warehouse) validate(name string) error {
	if err := warehouse.CheckName(name); err != nil {
		return resource.Invalid("warehouses", "the warehouse %q: %w", name, err)
	}
	if (w.SQLite == "") == (w.Postgres == "") {
		return resource.Invalid("warehouses."+name, "the warehouse %s is not one of sqlite and postgres", name).WithHint("write %s: {sqlite: FILE} or %s: {postgres: URL}", name, name)
	}
	return nil
}

// warehouseProjects are the projects of the warehouses that not every project may use.
func (c Config) warehouseProjects() map[string][]string {
	all := map[string][]string{}
	for name, w := range c.Warehouses {
		if len(w.Projects) > 0 {
			all[name] = w.Projects
		}
	}
	return all
}

func (c Config) openWarehouses() (map[string]warehouse.Warehouse, error) {
	all := map[string]warehouse.Warehouse{}
	var errs []error
	for name, w := range c.Warehouses {
		var opened warehouse.Warehouse
		var err error
		if w.Postgres != "" {
			opened, err = postgres.Open(w.Postgres)
		} else {
			path := w.SQLite
			if !filepath.IsAbs(path) {
				path = filepath.Join(c.Data, path)
			}
			opened, err = sqlite.Open(path)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all[name] = opened
	}
	return all, errors.Join(errs...)
}
