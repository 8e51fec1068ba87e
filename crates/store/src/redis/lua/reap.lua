-- Ends the sessions of workers whose leases have run out. Returns how many.
return sweep()
