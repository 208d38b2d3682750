-- A ticket is used up. KEYS[1] is its own, ARGV[1] for how many milliseconds that is remembered. Answers 1 for the first.

return redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[1]) and 1 or 0
