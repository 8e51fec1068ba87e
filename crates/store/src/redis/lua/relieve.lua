-- Forgets what is over by time: all but the workers whose leases are, which could not renew them while there was no room.
forget_over()
expire_contexts()
return 1
