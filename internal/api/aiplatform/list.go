package aiplatform

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/store"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// ListOptions changes how a list is made. The zero value is the standard method.
type ListOptions struct {
	Kind        store.Kind // of the rows; the collection of the listed message when empty
	Parent      string     // of the rows; the request's parent when empty
	Prefix      string     // of the rows' keys, instead of a parent
	OldestFirst bool       // the order without order_by, which is newest first
	Aliases     map[string]string
	Calls       []string // with Call, the functions that the filter may use
	Call        func(ctx context.Context, msg proto.Message, name string, args []string) (bool, error)
	// Each completes a message that is about to be answered.
	Each func(ctx context.Context, msg proto.Message) error
}

// scanBatch is how many rows a filtered list reads at a time at most. It begins with
// as many as the page has, since most filters leave most rows.
const scanBatch = 512

// List answers a standard List method into resp: parent (with "-" for any
// location), filter, order_by, page_size, page_token and read_mask of req.
func (s *Standard) List(ctx context.Context, req, resp proto.Message) error {
	return s.ListWith(ctx, req, resp, ListOptions{})
}

// ListWith is List with options.
func (s *Standard) ListWith(ctx context.Context, req, resp proto.Message, o ListOptions) error {
	l, err := s.newLister(req.ProtoReflect(), resp.ProtoReflect(), o)
	if err != nil {
		return err
	}
	var next string
	if l.order.Empty() {
		next, err = l.byTime(ctx)
	} else {
		next, err = l.byOrder(ctx)
	}
	if err != nil {
		return err
	}
	list := resp.ProtoReflect().Mutable(l.items).List()
	bytes := 0
	for i, h := range l.found {
		if bytes > maxPage { // of what Each added
			next = l.after(i)
			break
		}
		if o.Each != nil {
			if err := o.Each(ctx, h.msg); err != nil {
				return err
			}
			bytes += proto.Size(h.msg)
		}
		l.mask.Prune(h.msg.ProtoReflect())
		list.Append(protoreflect.ValueOfMessage(h.msg.ProtoReflect()))
	}
	setString(resp.ProtoReflect(), "next_page_token", next)
	return nil
}

// after is the token of the page that begins with the i-th of what was found.
func (l *lister) after(i int) string {
	if l.order.Empty() {
		last := l.found[i-1].row
		return resource.Page{Created: last.Created, Key: last.Key}.Token(l.query)
	}
	return resource.Page{Offset: l.page.Offset + i}.Token(l.query)
}

// lister is one list in progress.
type lister struct {
	ListOptions
	store  store.Reader
	items  protoreflect.FieldDescriptor
	new    func() proto.Message
	filter *resource.Filter
	order  resource.OrderBy
	mask   resource.Mask
	query  string // what a page token is bound to
	page   resource.Page
	size   int
	found  []hit
}

type hit struct {
	row store.Row
	msg proto.Message
}

func (s *Standard) newLister(req, resp protoreflect.Message, o ListOptions) (*lister, error) {
	l := &lister{ListOptions: o, store: s.store, items: itemsOf(resp.Descriptor())}
	if l.items == nil {
		return nil, fmt.Errorf("%s lists nothing", resp.Descriptor().FullName())
	}
	l.new = func() proto.Message { return resp.NewField(l.items).List().NewElement().Message().New().Interface() }
	if err := l.locate(getString(req, "parent")); err != nil {
		return nil, err
	}
	schema := resource.Schema{Message: l.items.Message(), Calls: o.Calls, Aliases: l.Aliases}
	var err error
	if l.filter, err = resource.ParseFilter(getString(req, "filter"), schema); err != nil {
		return nil, err
	}
	if l.order, err = resource.ParseOrderBy(getString(req, "order_by"), schema); err != nil {
		return nil, err
	}
	if fm, ok := message(req, "read_mask").(*fieldmaskpb.FieldMask); ok {
		if l.mask, err = resource.ParseMask("read_mask", fm.GetPaths(), l.items.Message()); err != nil {
			return nil, err
		}
	}
	return l, l.readPage(req)
}

// locate says which rows are listed, unless the options said it.
func (l *lister) locate(parent string) error {
	if l.Prefix != "" {
		return nil
	}
	typ, err := typeOf(l.items.Message())
	if err != nil {
		return err
	}
	if l.Kind == "" {
		l.Kind = typ.kind()
	}
	l.Aliases = typ.aliases(l.Aliases)
	if l.Parent != "" {
		return nil
	}
	l.Parent = parent
	if !typ.matchesParent(parent) || strings.HasPrefix(parent, "projects/-/") {
		return resource.Invalid("parent", "%q is not a parent of %s: want %s", parent, typ.collection, typ.parentPattern())
	}
	return nil
}

func (l *lister) readPage(req protoreflect.Message) error {
	asked := 0
	if fd := field(req, "page_size", protoreflect.Int32Kind); fd != nil {
		asked = int(req.Get(fd).Int())
	}
	var err error
	if l.size, err = resource.PageSize(asked); err != nil {
		return err
	}
	l.query = strings.Join([]string{string(l.Kind), l.Parent, l.Prefix, getString(req, "filter"), getString(req, "order_by")}, "\x00")
	if token := getString(req, "page_token"); token != "" {
		l.page, err = resource.ParsePage(token, l.query)
	}
	return err
}

// aliases adds the names that the API documents for every resource: its own
// singular ("model", "endpoint") stands for the id.
func (t resourceType) aliases(more map[string]string) map[string]string {
	out := map[string]string{t.singular: "name/"}
	maps.Copy(out, more)
	return out
}

func itemsOf(md protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	fields := md.Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); fd.IsList() && fd.Message() != nil {
			return fd
		}
	}
	return nil
}

// rows gives the query for the parent; a "-" in it is matched row by row.
func (l *lister) rows() (q store.Query, keep func(store.Row) bool) {
	q = store.Query{Kind: l.Kind, Order: store.ByNewest}
	if l.OldestFirst {
		q.Order = store.ByCreated
	}
	if l.Prefix != "" {
		q.Prefix = l.Prefix
		return q, func(store.Row) bool { return true }
	}
	prefix, _, wild := strings.Cut(l.Parent+"/", "/-/")
	if !wild {
		q.Parent = l.Parent
		return q, func(store.Row) bool { return true }
	}
	q.Prefix = prefix + "/"
	return q, func(r store.Row) bool { return matchWildcards(l.Parent, r.Parent) }
}

// matchWildcards compares names segment by segment; "-" stands for any id.
func matchWildcards(want, name string) bool {
	w, n := strings.Split(want, "/"), strings.Split(name, "/")
	if len(w) != len(n) {
		return false
	}
	for i := range w {
		if w[i] != "-" && w[i] != n[i] {
			return false
		}
	}
	return true
}

// maxPage ends a page of large resources early (AIP-158 lets a page be shorter
// than asked for).
const maxPage = 4 << 20

// byTime reads only as many rows as the page needs.
func (l *lister) byTime(ctx context.Context) (next string, err error) {
	q, keep := l.rows()
	q.Limit = l.size + 1
	if l.page.Key != "" {
		q.Beyond = &store.Row{Created: l.page.Created, Key: l.page.Key}
	}
	bytes := 0
	for {
		rows, err := l.store.List(ctx, q)
		if err != nil {
			return "", err
		}
		for _, row := range rows {
			if !keep(row) {
				continue
			}
			msg, ok, err := l.read(ctx, row)
			if err != nil {
				return "", err
			}
			if !ok {
				continue
			}
			if len(l.found) == l.size || bytes > maxPage {
				return l.after(len(l.found)), nil
			}
			l.found = append(l.found, hit{row, msg})
			bytes += len(row.Data)
		}
		if len(rows) < q.Limit {
			return "", nil
		}
		q.Beyond, q.Limit = &rows[len(rows)-1], max(q.Limit, min(2*q.Limit, scanBatch))
	}
}

// byOrder reads every row, since the order is by what is inside them.
func (l *lister) byOrder(ctx context.Context) (next string, err error) {
	q, keep := l.rows()
	rows, err := l.store.List(ctx, q)
	if err != nil {
		return "", err
	}
	var all []hit
	for _, row := range rows {
		if !keep(row) {
			continue
		}
		msg, ok, err := l.read(ctx, row)
		if err != nil {
			return "", err
		}
		if ok {
			all = append(all, hit{row, msg})
		}
	}
	slices.SortStableFunc(all, func(a, b hit) int { return l.order.Compare(a.msg.ProtoReflect(), b.msg.ProtoReflect()) })
	all = all[min(l.page.Offset, len(all)):]
	l.found = all[:min(l.size, len(all))]
	if len(all) > l.size {
		next = l.after(l.size)
	}
	return next, nil
}

func (l *lister) read(ctx context.Context, row store.Row) (proto.Message, bool, error) {
	msg := l.new()
	if err := store.Unmarshal(row, msg); err != nil {
		return nil, false, err
	}
	ok, err := l.filter.Match(msg.ProtoReflect(), func(name string, args []string) (bool, error) {
		return l.Call(ctx, msg, name, args)
	})
	return msg, ok, err
}
