// Package workload says who is to be enrolled: the cgroups that AccessPolicies name, with those that appear later, and the
// cgroups that somebody asked for. Source is its one type. It knows nothing of how a workload is captured.
package workload
