"""A class that is not there yet: many users at once who log in through the real front door and work as people do."""
