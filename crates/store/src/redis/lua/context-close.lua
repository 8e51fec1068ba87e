-- The session that opened it is over. ARGV: context, retention.
close_context(ARGV[1], tonumber(ARGV[2]))
return 1
