-- ARGV[1] PUBLISH or SPUBLISH, then channel, message, channel, message, …: all of them in the slot of KEYS[1].

for place = 2, #ARGV, 2 do
  redis.call(ARGV[1], ARGV[place], ARGV[place + 1])
end
return 0
