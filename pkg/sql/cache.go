package sql

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

const (
	cacheShards = 16
	// shardBytes bounds the memory of one shard's scripts, as far as it can be told; all shards together have 32 MiB.
	shardBytes = 2 << 20
	// shardEntries bounds the number of one shard's scripts.
	shardEntries = 2048
	// maxCached is the longest text whose script is kept.
	maxCached = 32 << 10
)

// A Cache keeps scripts by their text. Texts that differ in literals alone share one where the literals do not matter. It is safe
// for concurrent use, and its memory is bounded: when it is full, scripts that were not used of late make room.
type Cache struct {
	seed    maphash.Seed
	shards  [cacheShards]shard
	buffers sync.Pool // of *[]byte, for blind keys
}

// A shard is the part of a cache for keys of one hash.
type shard struct {
	mu      sync.RWMutex
	entries map[string]*entry
	ring    []*entry // where the hand goes round
	hand    int
	bytes   int
}

// An entry is a script in a cache. One that was used since the hand came by last is spared once.
type entry struct {
	key    string
	blind  bool // the key has marks in place of literals
	script *Script
	bytes  int
	used   atomic.Bool
}

// NewCache makes an empty cache of up to 32 MiB and 32,768 scripts.
func NewCache() *Cache {
	c := &Cache{seed: maphash.MakeSeed(), buffers: sync.Pool{New: func() any { return new([]byte) }}}
	for i := range c.shards {
		c.shards[i].entries = map[string]*entry{}
	}
	return c
}

// Get is Parse with memory. A hit allocates nothing; text is not kept.
func (c *Cache) Get(text []byte) (*Script, error) {
	if script := c.find(text, false); script != nil {
		return script, nil
	}
	if len(text) > maxCached {
		return Parse(string(text))
	}
	buffer := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buffer)
	key, marked, ok := blind((*buffer)[:0], text)
	*buffer = key
	if ok && marked {
		if script := c.find(key, true); script != nil {
			return script, nil
		}
	}
	script, err := Parse(string(text))
	if err != nil {
		return nil, err
	}
	if ok && marked && script.plain {
		c.add(string(key), true, script)
	} else {
		c.add(string(text), false, script)
	}
	return script, nil
}

func (c *Cache) shard(key []byte) *shard {
	return &c.shards[maphash.Bytes(c.seed, key)%cacheShards]
}

func (c *Cache) find(key []byte, blind bool) *Script {
	s := c.shard(key)
	s.mu.RLock()
	e := s.entries[string(key)]
	s.mu.RUnlock()
	if e == nil || e.blind != blind {
		return nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.script
}

func (c *Cache) add(key string, blind bool, script *Script) {
	e := &entry{key: key, blind: blind, script: script, bytes: len(key) + script.size()}
	if e.bytes > shardBytes/8 {
		return
	}
	s := c.shard([]byte(key))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[key] != nil { // another session was faster
		return
	}
	for s.bytes+e.bytes > shardBytes || len(s.ring) >= shardEntries {
		s.evict()
	}
	s.entries[key] = e
	s.ring = append(s.ring, e)
	s.bytes += e.bytes
}

// evict drops the first entry that the hand comes to and that was not used since it was there last.
func (s *shard) evict() {
	for {
		s.hand %= len(s.ring)
		e := s.ring[s.hand]
		if !e.used.Swap(false) {
			delete(s.entries, e.key)
			s.bytes -= e.bytes
			last := len(s.ring) - 1
			s.ring[s.hand] = s.ring[last]
			s.ring[last] = nil
			s.ring = s.ring[:last]
			return
		}
		s.hand++
	}
}

// size is about how many bytes a script takes.
func (s *Script) size() int {
	const (
		perEntry     = 256
		perStatement = 256
		perUnit      = 256
		perObject    = 64
	)
	n := perEntry + len(s.Normalised) + len(s.redacted)
	for _, st := range s.Statements {
		n += perStatement
		for i := range st.Units {
			u := &st.Units[i]
			n += perUnit + perObject*(len(u.Reads)+len(u.Writes)+len(u.Functions))
		}
	}
	return n
}
