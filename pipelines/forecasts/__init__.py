"""Weather ahead: Prithvi WxC rolled forward, and outlooks of seasons."""
