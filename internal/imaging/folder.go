package imaging

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Folder is what of a directory travels with a run.
type Folder struct {
	Dir     string
	Files   int
	Bytes   int64    // of the files, as they are
	LeftOut []string // what the top of the folder has and stays behind; folders end in "/"
	Below   int      // how many files and folders below it do
	Source  string   // the ignore file that was read; "" = there is none

	ignore *Ignore
}

// DefaultFolderLimit bounds the files that travel with a run.
const DefaultFolderLimit = 256 << 20

// OpenFolder looks through a directory. One with more than limit bytes is refused,
// with what it is that takes the room.
func OpenFolder(dir string, limit int64) (_ *Folder, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	if !info.IsDir() {
		return nil, resource.Invalid("folder", "%s is not a directory", dir)
	}
	fsys := os.DirFS(dir)
	f := &Folder{Dir: dir}
	if f.ignore, err = NewIgnore(fsys); err != nil {
		return nil, err
	}
	heavy := map[string]int64{}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if f.ignore.Ignored(name, d.IsDir()) {
			return f.leave(name, d)
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			f.Files, f.Bytes = f.Files+1, f.Bytes+info.Size()
			top, _, _ := strings.Cut(name, "/")
			heavy[top] += info.Size()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	f.Source = f.ignore.Source
	if f.Bytes > limit {
		return nil, tooLarge(f, limit, heavy)
	}
	return f, nil
}

func (f *Folder) leave(name string, d fs.DirEntry) error {
	shown := name
	if d.IsDir() {
		shown += "/"
	}
	if strings.Contains(name, "/") {
		f.Below++
	} else if name != IgnoreFile {
		f.LeftOut = append(f.LeftOut, shown)
	}
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func tooLarge(f *Folder, limit int64, heavy map[string]int64) error {
	names := make([]string, 0, len(heavy))
	for name := range heavy {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(heavy[b], heavy[a]), strings.Compare(a, b)) })
	names = names[:min(3, len(names))]
	most := make([]string, 0, len(names))
	for _, name := range names {
		most = append(most, name+" "+amount(heavy[name]))
	}
	return resource.Errorf(codes.ResourceExhausted, "the folder %s has %s of files, and %s may travel with a run: %s",
		f.Dir, amount(f.Bytes), amount(limit), strings.Join(most, ", ")).
		WithHint("name in %s what can stay behind, put data into a bucket (`tategu cp -r data gs://BUCKET/`), or raise --folder-limit", IgnoreFile)
}

func amount(bytes int64) string {
	if bytes < 1e6 {
		return fmt.Sprintf("%.1f kB", float64(bytes)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

// String says what travels, for people.
func (f *Folder) String() string {
	text := fmt.Sprintf("%d files, %s", f.Files, amount(f.Bytes))
	out := slices.Clone(f.LeftOut)
	if more := len(out) - 8; more > 0 {
		out = append(out[:8], fmt.Sprintf("%d more", more))
	}
	if f.Below > 0 {
		out = append(out, fmt.Sprintf("%d below", f.Below))
	}
	if len(out) > 0 {
		text += "; left out: " + strings.Join(out, ", ")
		if f.Source != "" {
			text += " (" + f.Source + ")"
		}
	}
	return text
}

// Recipe gives a recipe that packs the folder and nothing else.
func (f *Folder) Recipe() Recipe { return Recipe{Skip: f.ignore.Ignored} }
