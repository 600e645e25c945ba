"""One readable loop for every model, and what it stands on: data, schedule, averages, run folder."""
