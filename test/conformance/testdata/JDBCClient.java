import java.io.StringReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;

/** PostgreSQL's JDBC driver: batches, server-prepared statements in binary, fetch size, COPY, savepoints, cancel. */
class JDBCClient {
  public static void main(String[] args) throws Exception {
    try (Connection connection = DriverManager.getConnection(args[0])) {
      try (Statement statement = connection.createStatement()) {
        statement.execute("CREATE TEMP TABLE t (id int PRIMARY KEY, name text, amount numeric(10,2))");
      }
      connection.setAutoCommit(false);
      try (PreparedStatement insert = connection.prepareStatement("INSERT INTO t VALUES (?, ?, ?)")) {
        for (int i = 0; i < 1000; i++) {
          insert.setInt(1, i);
          insert.setString(2, "n" + i);
          insert.setBigDecimal(3, new java.math.BigDecimal(i).movePointLeft(2));
          insert.addBatch();
        }
        System.out.println("batch " + insert.executeBatch().length);
      }
      connection.commit();
      try (PreparedStatement select = connection.prepareStatement("SELECT name, amount FROM t WHERE id = ?")) {
        for (int i = 0; i < 12; i++) { // from the fifth on the driver prepares on the server, and asks for binary
          select.setInt(1, i);
          try (ResultSet rows = select.executeQuery()) {
            rows.next();
            if (i == 11) System.out.println("prepared " + rows.getString(1) + " " + rows.getBigDecimal(2));
          }
        }
      }
      try (Statement statement = connection.createStatement()) {
        statement.setFetchSize(50);
        int n = 0;
        try (ResultSet rows = statement.executeQuery("SELECT id FROM t")) {
          while (rows.next()) n++;
        }
        System.out.println("fetched " + n);
      }
      var savepoint = connection.setSavepoint();
      try (Statement statement = connection.createStatement()) {
        statement.executeUpdate("INSERT INTO t VALUES (1, 'again', 0)");
      } catch (PSQLException e) {
        System.out.println("duplicate " + e.getSQLState());
        connection.rollback(savepoint);
      }
      long copied = connection.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY t (id, name) FROM STDIN", new StringReader("7000\tx\n7001\ty\n"));
      System.out.println("copied " + copied);
      connection.commit();
      try (Statement statement = connection.createStatement()) {
        statement.setQueryTimeout(1);
        statement.execute("SELECT pg_sleep(30)");
      } catch (SQLException e) {
        System.out.println("timeout " + e.getSQLState());
      }
      connection.rollback();
      System.out.println("tables " + connection.getMetaData().getTables(null, "pg_temp%", "t", null).next());
    }
  }
}
