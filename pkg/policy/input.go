package policy

import (
	"slices"
	"strings"

	"github.com/sallyport-dev/sallyport/pkg/sql"
)

// A Statement is one unit of a SQL statement as rules see it: the variable "statement".
type Statement struct {
	Kind      string   `cel:"kind"`
	Verb      string   `cel:"verb"`
	Reads     []string `cel:"reads"`
	Writes    []string `cel:"writes"`
	Tables    []string `cel:"tables"`
	Functions []string `cel:"functions"`
	Filtered  bool     `cel:"filtered"`
	Program   bool     `cel:"program"`
	File      bool     `cel:"file"`
	Role      string   `cel:"role"`
	Setting   string   `cel:"setting"`
}

// A Workload is who asks: the variable "workload".
type Workload struct {
	Name   string
	Cgroup string
	UID    uint32
	Comm   string
	// ProcessUnknown is true where UID and Comm mean nothing; a rule that asks for them can not be evaluated.
	ProcessUnknown bool
}

// workloadFields is a Workload as rules see it: with a uid that compares with plain numbers.
type workloadFields struct {
	Name   string `cel:"name"`
	Cgroup string `cel:"cgroup"`
	UID    int64  `cel:"uid"`
	Comm   string `cel:"comm"`
}

func (w Workload) fields() *workloadFields {
	return &workloadFields{Name: w.Name, Cgroup: w.Cgroup, UID: int64(w.UID), Comm: w.Comm}
}

// A Target is what is asked: the variable "target".
type Target struct {
	Name     string `cel:"name"`
	Protocol string `cel:"protocol"`
}

// A Session is what the client says of itself, unproven: the variable "session".
type Session struct {
	Database        string `cel:"database"`
	User            string `cel:"user"`
	ApplicationName string `cel:"applicationName"`
}

// A Subject is all that stays the same in a session.
type Subject struct {
	Workload Workload
	Target   Target
	Session  Session
}

// catalog is the schema of the system's own objects. It is in every search path, mostly without being named there.
const catalog = "pg_catalog"

// Resolve makes a unit the Statement that rules see. A table that the statement leaves to the search path stands for one of each
// schema in it, and for the system's if its name begins like those; with an empty path it is in the schema "?". A function stands for
// one of each schema, and for itself, since it may be the system's; the system's are named without a schema.
func Resolve(u *sql.Unit, searchPath []string) *Statement {
	s := &Statement{
		Kind: u.Kind, Verb: u.Verb, Filtered: u.Filtered, Program: u.Program, File: u.File, Role: u.Role, Setting: u.Setting,
		Reads: tables(u.Reads, searchPath), Writes: tables(u.Writes, searchPath), Functions: functions(u.Functions, searchPath),
	}
	s.Tables = distinct(append(slices.Clone(s.Reads), s.Writes...))
	return s
}

func tables(objects []sql.Object, searchPath []string) []string {
	names := []string{}
	for _, o := range objects {
		if o.Schema != "" {
			names = append(names, o.Schema+"."+o.Name)
			continue
		}
		for _, schema := range searchPath {
			names = append(names, schema+"."+o.Name)
		}
		switch {
		case strings.HasPrefix(o.Name, "pg_"):
			names = append(names, catalog+"."+o.Name)
		case len(searchPath) == 0:
			names = append(names, "?."+o.Name)
		}
	}
	return distinct(names)
}

func functions(objects []sql.Object, searchPath []string) []string {
	names := []string{}
	for _, o := range objects {
		switch o.Schema {
		case catalog:
			names = append(names, o.Name)
		case "":
			names = append(names, o.Name)
			for _, schema := range searchPath {
				if schema != catalog {
					names = append(names, schema+"."+o.Name)
				}
			}
		default:
			names = append(names, o.Schema+"."+o.Name)
		}
	}
	return distinct(names)
}

func distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
