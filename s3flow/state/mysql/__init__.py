"""The state on a MySQL or MariaDB server, by aiomysql."""
