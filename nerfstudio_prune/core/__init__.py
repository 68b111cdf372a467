"""What every kind of pruning needs: schedules, the record of events, and edits of parameters inside optimizers."""
