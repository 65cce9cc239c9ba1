"""Where one shot ends and the next begins: detectors behind one protocol, fed by the one decode pass."""
