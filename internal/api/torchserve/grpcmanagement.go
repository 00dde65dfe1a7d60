package torchserve

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	engine "tategu/internal/torchserve"
)

func sortParts(ps []engine.Part) {
	slices.SortFunc(ps, func(x, y engine.Part) int { return strings.Compare(x.Name, y.Name) })
}

func said(in *message, text string) proto.Message { return in.answer(map[string]any{"msg": text}) }

// saidJSON is JSON as the HTTP API has it, without the newline at its end.
func saidJSON(in *message, v any) proto.Message {
	return said(in, strings.TrimSuffix(string(pretty(v)), "\n"))
}

func (a *API) grpcDescribe(ctx context.Context, in *message, send func(proto.Message) error) error {
	ds, err := a.describe(ctx, in.text("model_name"), in.text("model_version"), in.bool("customized"))
	if err != nil {
		return err
	}
	return send(saidJSON(in, ds))
}

func (a *API) grpcList(_ context.Context, in *message, send func(proto.Message) error) error {
	limit := in.int("limit")
	if limit == 0 { // not said
		limit = pageSize
	}
	return send(saidJSON(in, a.list(limit, in.int("next_page_token"))))
}

func (a *API) grpcRegister(ctx context.Context, in *message, send func(proto.Message) error) error {
	if !a.cfg.ModelAPI {
		return notAllowed()
	}
	_, status, err := a.register(ctx, func(name string) (string, bool) {
		fd := in.Descriptor().Fields().ByName(protoName(name))
		if fd == nil {
			return "", false
		}
		if name == "synchronous" { // false where it is not said
			return strconv.FormatBool(in.bool(name)), true
		}
		return in.Get(fd).String(), in.Has(fd)
	})
	if err != nil {
		return err
	}
	return send(said(in, status))
}

func (a *API) grpcScale(ctx context.Context, in *message, send func(proto.Message) error) error {
	least := in.int("min_worker")
	if least == 0 { // not said
		least = 1
	}
	most := in.int("max_worker")
	if most == 0 {
		most = least
	}
	_, status, err := a.scale(ctx, in.text("model_name"), in.text("model_version"), least, most, in.bool("synchronous"))
	if err != nil {
		return err
	}
	return send(said(in, status))
}

func (a *API) grpcSetDefault(ctx context.Context, in *message, send func(proto.Message) error) error {
	model, version := in.text("model_name"), in.text("model_version")
	if err := a.Engine.SetDefault(ctx, model, version); err != nil {
		return err
	}
	return send(said(in, "Default version successfully updated for model \""+model+"\" to \""+version+"\""))
}

func (a *API) grpcUnregister(ctx context.Context, in *message, send func(proto.Message) error) error {
	if !a.cfg.ModelAPI {
		return notAllowed()
	}
	name := in.text("model_name")
	if name == "" {
		return badRequest("Parameter model_name is required.")
	}
	if err := a.Engine.Unregister(ctx, name, in.text("model_version")); err != nil {
		return err
	}
	return send(said(in, unregistered(name)))
}
