-- The session of a call. ARGV: call. Returns '' for one that is not known.
return call('HGET', P .. 'calls', ARGV[1]) or ''
