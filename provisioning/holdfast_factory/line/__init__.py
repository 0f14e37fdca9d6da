"""The factory line: stations, their one ledger, the CA behind them, and what goes out to MASA and owner."""
