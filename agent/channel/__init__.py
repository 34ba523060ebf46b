"""The channel between agents and server: events and reports up, acknowledgements and configuration down."""
