package app

import (
	"fmt"
	"os"
	"time"

	"tategu/internal/api"
	"tategu/internal/api/admin"
	"tategu/internal/api/aiplatform"
	"tategu/internal/api/cloud"
	"tategu/internal/api/console"
	"tategu/internal/api/gcs"
	"tategu/internal/api/registry"
	"tategu/internal/wire"
)

// service is a group of methods of the dispatch table.
type service interface {
	Methods() ([]api.Method, error)
}

// services lists everything that the API serves. A new service is a line here.
func (m *Main) services() []service {
	std := aiplatform.NewStandard(m.store, m.now)
	public := func() string { return m.state.Public }
	may := m.admission()
	return []service{
		aiplatform.NewModels(std),
		aiplatform.NewEndpoints(std, m.authority, may, m.engines.serving, public),
		aiplatform.NewPools(std),
		aiplatform.NewPrediction(m.engines.serving),
		m.jobs,
		m.schedules,
		aiplatform.NewCustomJobs(std, m.authority, may),
		aiplatform.NewBatchJobs(std, m.authority, may),
		aiplatform.NewMetadata(std),
		aiplatform.NewIndexes(std, may, m.engines.vector),
		aiplatform.NewIndexEndpoints(std, m.engines.vector, public),
		aiplatform.NewMatch(m.engines.vector),
		aiplatform.NewPrivateMatch(m.engines.vector, m.authority),
		aiplatform.NewOperations(std),
	}
}

func (m *Main) cloud() (*cloud.Service, error) {
	ca, err := os.ReadFile(m.ca.CertFile())
	if err != nil {
		return nil, fmt.Errorf("read our certificate: %w", err)
	}
	return cloud.New(m.authority, cloud.Config{
		CA: ca, Location: m.cfg.Location, Public: func() string { return m.state.Public }, Log: m.log, Now: m.now,
	}), nil
}

// table joins the methods of all services.
func (m *Main) table() (*api.Table, error) {
	neighbours, err := m.cloud()
	if err != nil {
		return nil, err
	}
	groups := [][]api.Method{neighbours.Methods()}
	for _, s := range m.services() {
		methods, err := s.Methods()
		if err != nil {
			return nil, err
		}
		groups = append(groups, methods)
	}
	return api.NewTable(groups...)
}

// routes lists what is served as plain HTTP.
func (m *Main) routes() ([]wire.Route, error) {
	neighbours, err := m.cloud()
	if err != nil {
		return nil, err
	}
	m.pages, err = console.New(m.store, m.authority, logs{m}, machine{m.schedule}, m.version, m.warnings, m.log, m.now)
	if err != nil {
		return nil, err
	}
	storage := gcs.New(m.blobs, m.authority, m.log, m.now)
	routes := wire.GCSRoutes(storage)
	routes = append(routes, wire.CloudRoutes(neighbours)...)
	routes = append(routes, wire.Route{Name: "tokens", Handler: neighbours, Prefixes: []string{"/tategu/v1/tokens", "/tategu/v1/login", "/tategu/v1/audit"}})
	routes = append(routes, wire.Route{Name: "storage", Audit: true, Handler: storage.Collector(), Exact: []string{gcs.CollectPath}})
	routes = append(routes, wire.Route{Name: "backup", Handler: admin.New(m.authority, m.backup, m.log), Exact: []string{admin.BackupPath}})
	routes = append(routes, wire.Route{Name: "queue", Handler: admin.NewQueue(m.authority, m.queue), Exact: []string{admin.QueuePath}})
	routes = append(routes, wire.Route{Name: "shadow", Handler: admin.NewShadow(m.authority, m.engines.serving.ShadowReport), Exact: []string{admin.ShadowPath}})
	routes = append(routes, wire.Route{Name: "index", Audit: true, Handler: admin.NewIndex(m.authority, m.engines.vector), Exact: []string{admin.IndexPath, admin.IndexPath + "/datapoints", admin.IndexPath + "/rollback"}})
	images := registry.New(registry.Config{Images: m.registered, Auth: m.authority, Project: m.cfg.Project, Untagged: m.cfg.Registry.Untagged, Packed: m.cfg.Registry.Packed, Log: m.log})
	routes = append(routes, wire.RegistryRoutes(images, registry.ListPath, registry.CollectPath)...)
	routes = append(routes, wire.ManageRoutes(aiplatform.NewTorchManagement(m.engines.serving, m.authority))...)
	routes = append(routes, wire.InvokeRoutes(aiplatform.NewInvoke(m.engines.serving, m.authority))...)
	routes = append(routes, wire.ProtocolRoutes(aiplatform.NewProtocols(m.engines.serving, m.authority, m.version))...)
	routes = append(routes, wire.ConsoleRoutes(m.pages, console.Patterns()...)...)
	return routes, nil
}

// pipelineHold bounds how long a Get of a running pipeline waits for its end:
// the SDK polls with a fixed sleep of 5 s, so an answer that comes a little later
// and says SUCCEEDED saves the user that sleep.
const pipelineHold = 2 * time.Second
