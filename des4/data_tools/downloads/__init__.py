"""Download of public data sets: fetched over https, verified, unpacked safely."""
