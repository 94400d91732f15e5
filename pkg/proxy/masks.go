package proxy

import "github.com/sallyport-dev/sallyport/pkg/mask"

// Masks are what the session's results do not show; nil when no policy of it masks anything.
func (s *Session) Masks() *mask.Rules { return s.grant.Masks() }

// Masked counts values that were masked.
func (s *Session) Masked(policy, mask string, values uint64) {
	s.proxy.Metrics.masked.WithLabelValues(s.Target.Metadata.Name, policy, mask).Add(float64(values))
}
