"""What waits to be sent: bounded, in two lanes, with a ledger; in memory."""
