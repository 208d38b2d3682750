"""Many machines under load and under faults, for as long as you like: what was promised to any client is so.

    python -m tests.e2e.campaign --minutes 60 --nodes 3

Conversations begin and end all the time. Each is talked in by way of a balancer, by the Python and the JavaScript
client, and followed by readers of four kinds from its first event to its last; what any of them was told is noted, and
held against the log when the conversation is over. Meanwhile nodes are killed, paused, cut off and restarted, their
clocks are set, and the store is killed and its lines go wrong.

- `ledger`: what one conversation's clients were told, and what of it is not so
- `readers`: those that follow, each over one client
- `talk`: what is done in a conversation; `conversation`: its life
- `script`: the JavaScript client, in a process of its own (`client.mjs`)
- `faults`: what goes wrong, by seed
- `watch`: what is looked at in the store while all this goes on: owners, tokens, and what nobody owns
- `run`: the whole, its report and its verdict
"""
