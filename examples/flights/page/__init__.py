"""The departures board in a browser: pages that live well with a read side that lags."""
